"""Tokens to text, one by one, as they come.

Guaranteed: the pieces join to what the tokeniser makes of all tokens at once, but for the beginning of a character at
the very end, which is left out; special tokens are no text. Not guaranteed: a piece for every token.
"""

from __future__ import annotations

from collections.abc import Callable

_INCOMPLETE = "\ufffd"


class Detokenizer:
    """The text of one answer; `decode` is the tokeniser's own, of tokens to text."""

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        # Tokens from `_context` on are decoded again each time: what a token means may depend on those before it.
        self._context = 0
        self._read = 0

    def add(self, token: int) -> str:
        """The text that is certain with the next token."""
        self._ids.append(token)
        return self._new(complete=False)

    def finish(self) -> str:
        """What the last tokens held back."""
        return self._new(complete=True)

    def _new(self, complete: bool) -> str:
        before = self._decode(self._ids[self._context : self._read])
        text = self._decode(self._ids[self._context :])
        if complete:
            return text.rstrip(_INCOMPLETE)[len(before) :]
        if len(text) <= len(before) or text.endswith(_INCOMPLETE):
            return ""
        self._context, self._read = self._read, len(self._ids)
        return text[len(before) :]
