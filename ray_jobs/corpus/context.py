"""What goes before a chunk's text in front of the embedder: the document's title and the headings above the chunk.

Guaranteed: the context has at most a quarter of the window, so the text keeps three; what the chunk's text says itself
(a heading that it contains) is not said twice. Not guaranteed: that all headings fit; the title comes first, then the
innermost headings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ray_jobs.corpus.tokens import TokenMap

SHARE_OF_WINDOW = 4
"""One part in this many is the most that the context takes."""

_SEAM = 1
"""Tokens counted for the line end after each line of context; tokenizers that drop white space need none."""


@dataclass(frozen=True, slots=True)
class Context:
    """The lines above the text, and the tokens they take, seams included."""

    lines: tuple[str, ...]
    tokens: int

    def over(self, text: str) -> str:
        """Return what the embedder sees of a chunk."""
        return "\n".join((*self.lines, text))


def context(title: str, headings: tuple[str, ...], maps: Mapping[str, TokenMap], allowance: int) -> Context:
    """Choose the lines above a chunk within `allowance` tokens; `maps` holds the tokens of the title and headings."""
    lines: list[str] = []
    left = allowance
    if title:
        shortened = _shorten(title, maps[title], left - _SEAM)
        if shortened:
            lines.append(shortened)
            left -= min(len(maps[title]), left - _SEAM) + _SEAM
    inner: list[str] = []
    for heading in reversed(headings):
        cost = len(maps[heading]) + _SEAM
        if heading != title and cost <= left:
            inner.insert(0, heading)
            left -= cost
    return Context((*lines, *inner), allowance - left)


def _shorten(text: str, tokens: TokenMap, allowance: int) -> str:
    return text if len(tokens) <= allowance else text[: tokens.reach(0, max(0, allowance))].rstrip()
