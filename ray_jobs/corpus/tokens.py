"""Where the tokens of a text lie: one pass of the embedder's tokenizer, then counting without it.

Guaranteed: a text is tokenised once, in windows that end at white space where there is any, so memory follows the
window and not the text. A token longer than LONG_TOKEN characters (a word that the tokenizer gave up on), and a stretch
of more than LONG_STRETCH characters without a token, counts as one token for every CHARACTERS_A_TOKEN characters.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import sub
from typing import Protocol

from ray_jobs.errors import ModelError

WINDOW_CHARACTERS = 32 * 1024
CALL_CHARACTERS = 1024 * 1024
LONG_TOKEN = 64
CHARACTERS_A_TOKEN = 4
LONG_STRETCH = 1024


class Tokenizer(Protocol):
    """The embedder's tokenizer, as chunking sees it."""

    @property
    def special_tokens(self) -> int:
        """How many tokens the embedder adds to a document: special ones, and those of its prompt."""
        ...

    def offsets(self, texts: list[str]) -> list[list[tuple[int, int]]]:
        """For each text the (start, end) of its tokens in code points, special tokens apart, never truncated."""
        ...


@dataclass(frozen=True, slots=True)
class TokenMap:
    """The offset at which each token of a text starts, ascending, and the length of the text."""

    starts: list[int]
    length: int

    def count(self, start: int, end: int) -> int:
        """Return the number of tokens that start in [start, end)."""
        return bisect_left(self.starts, end) - bisect_left(self.starts, start)

    def reach(self, start: int, tokens: int) -> int:
        """Return the end of the longest stretch from `start` that has at most `tokens` tokens."""
        index = bisect_left(self.starts, start) + tokens
        return self.starts[index] if index < len(self.starts) else self.length

    def back(self, end: int, tokens: int) -> int:
        """Return the start of the token that is `tokens` tokens before `end`."""
        return self.starts[max(0, bisect_left(self.starts, end) - tokens)]

    def __len__(self) -> int:
        return len(self.starts)


def token_maps(texts: Sequence[str], tokenizer: Tokenizer) -> list[TokenMap]:
    """Tokenise texts together. Raises ModelError if the tokenizer does not answer text for text."""
    windows = [(number, start, end) for number, text in enumerate(texts) for start, end in _windows(text)]
    starts: list[list[int]] = [[] for _ in texts]
    for call in _calls(windows):
        answers = tokenizer.offsets([texts[number][start:end] for number, start, end in call])
        if len(answers) != len(call):
            raise ModelError(f"the tokenizer answered {len(answers)} of {len(call)} texts: expected one answer a text")
        for (number, start, end), spans in zip(call, answers, strict=True):
            starts[number].extend(_starts(spans, start, end))
    return [TokenMap(found, len(text)) for found, text in zip(starts, texts, strict=True)]


def _windows(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    while len(text) - start > WINDOW_CHARACTERS:
        limit = start + WINDOW_CHARACTERS
        # A line end is a safe seam for every tokenizer; a space nearly so.
        end = text.rfind("\n", start + 1, limit) + 1 or text.rfind(" ", start + 1, limit) or limit
        end = limit if end <= start else end
        yield start, end
        start = end
    if start < len(text):
        yield start, len(text)


def _calls(windows: Sequence[tuple[int, int, int]]) -> Iterator[list[tuple[int, int, int]]]:
    call: list[tuple[int, int, int]] = []
    filled = 0
    for window in windows:
        call.append(window)
        filled += window[2] - window[1]
        if filled >= CALL_CHARACTERS:
            yield call
            call, filled = [], 0
    if call:
        yield call


def _starts(spans: list[tuple[int, int]], base: int, end: int) -> list[int]:
    """Return where tokens start in the whole text, what is long cut up."""
    starts = [base + start for start, _ in spans]
    if not starts or starts[0] - base > LONG_STRETCH:
        starts.insert(0, base)
    nexts = [*starts[1:], end]
    long = {base + start for start, stop in spans if stop - start > LONG_TOKEN}
    if not long and max(map(sub, nexts, starts)) <= LONG_STRETCH:
        return starts
    cut: list[int] = []
    for start, following in zip(starts, nexts, strict=True):
        whole = start not in long and following - start <= LONG_STRETCH
        cut.extend((start,) if whole else range(start, following, CHARACTERS_A_TOKEN))
    return cut
