"""What of a text the quality rules look at: words, lines, paragraphs, and how much of it comes again.

A word is a run of characters without white space; a character of a script without spaces (Chinese, Japanese) is a word
by itself. All shares are of what the text has, 0 where it has none. Repetition is measured as Gopher does (Rae et al.
2021, table A1): of the commonest run of 2 to 4 words, of all runs of 5 to 10 words that come more than once, each
character counted once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

COMMONEST_UP_TO = 4  # words of a run; of longer ones all that are repeated count
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_LETTER = re.compile(r"[^\W\d_]")
_ELLIPSIS = re.compile(r"\.\.\.|…")
_BULLET = re.compile(r"[-*•‣●▪◦–]\s")
_SENTENCE = re.compile(r"[.!?]+[\"'”’)\]]*(?=\s|$)|[。！？]")
_PARAGRAPH = re.compile(r"\n\s*\n")
_BOILERPLATE = re.compile(
    r"\bjavascript\b|\bcookies?\b|\bprivacy policy\b|\bterms (?:of (?:use|service)|and conditions)\b|lorem ipsum"
    r"|\ball rights reserved\b|\bskip to (?:main )?content\b|\bsubscribe (?:to|now)\b|\b(?:log|sign) in\b",
    re.IGNORECASE,
)
# Gopher's list: English prose has at least two of them.
STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))


class Measured:
    """One text, measured as far as it is asked."""

    def __init__(self, text: str) -> None:
        self.text = text

    @property
    def words(self) -> int:
        """How many words there are."""
        return len(self._words)

    @cached_property
    def unspaced(self) -> bool:
        """Whether a third of the words is of a script without spaces."""
        return 3 * len(re.findall(f"[{_UNSPACED}]", self.text)) > self.words

    @cached_property
    def word_length(self) -> float:
        """Mean characters a word."""
        return float(self._lengths.sum()) / max(1, self.words)

    @cached_property
    def symbols(self) -> float:
        """Hash signs and ellipses a word."""
        return (self.text.count("#") + len(_ELLIPSIS.findall(self.text))) / max(1, self.words)

    @cached_property
    def alphabetic(self) -> float:
        """Share of words with a letter."""
        return sum(_LETTER.search(word) is not None for word in self._words) / max(1, self.words)

    @cached_property
    def bullets(self) -> float:
        """Share of lines that begin with a bullet."""
        return _share([_BULLET.match(line) is not None for line in self._lines])

    @cached_property
    def ellipses(self) -> float:
        """Share of lines that end in an ellipsis."""
        return _share([line.endswith(("...", "…")) for line in self._lines])

    @cached_property
    def sentences(self) -> int:
        """How many sentences end."""
        return len(_SENTENCE.findall(self.text))

    @cached_property
    def stop_words(self) -> int:
        """Distinct English stop words."""
        return len(STOP_WORDS & {word.strip(".,;:!?\"'()").lower() for word in self._words})

    @cached_property
    def repeated_lines(self) -> float:
        """Share of lines that came before."""
        return _repeated_share(self._lines)

    @cached_property
    def repeated_paragraphs(self) -> float:
        """Share of paragraphs that came before."""
        return _repeated_share([part.strip() for part in _PARAGRAPH.split(self.text) if part.strip()])

    @cached_property
    def boilerplate(self) -> float:
        """Share of lines that speak of cookies, scripts, terms of use and the like."""
        return _share([_BOILERPLATE.search(line) is not None for line in self._lines])

    def repeated(self, length: int) -> float:
        """Share of characters in the commonest run of so many words, of long ones in all that come more than once."""
        runs = self._runs(length)
        if not len(runs):
            return 0.0
        _, first, numbers, counts = np.unique(runs, return_index=True, return_inverse=True, return_counts=True)
        total = int(self._lengths.sum())
        if length <= COMMONEST_UP_TO:
            own = np.convolve(self._lengths, np.ones(length, np.int64), "valid")[first]
            often = counts > 1
            return float((own * counts)[often].max() / total) if often.any() else 0.0
        begins = counts[numbers] > 1
        opened = np.r_[begins, np.zeros(length - 1, bool)].astype(np.int64)
        closed = np.r_[np.zeros(length, bool), begins][: self.words].astype(np.int64)
        covered = np.cumsum(opened - closed) > 0
        return float(self._lengths[covered].sum() / total)

    @cached_property
    def _words(self) -> list[str]:
        return _WORD.findall(self.text)

    @cached_property
    def _lines(self) -> list[str]:
        return [line for line in map(str.strip, self.text.split("\n")) if line]

    @cached_property
    def _lengths(self) -> npt.NDArray[np.int64]:
        return np.fromiter(map(len, self._words), np.int64, self.words)

    @cached_property
    def _numbers(self) -> dict[int, npt.NDArray[np.int64]]:
        """By length, the runs of words as numbers: equal where the runs are."""
        return {1: np.unique(np.array(self._words, object), return_inverse=True)[1] if self.words else _NONE}

    def _runs(self, length: int) -> npt.NDArray[np.int64]:
        """The runs of so many words, in order, as numbers, (words - length + 1,)."""
        if length not in self._numbers:
            shorter, last = self._runs(length - 1), self._numbers[1]
            pairs = shorter[:-1] * (int(last.max(initial=0)) + 1) + last[length - 1 :]
            self._numbers[length] = np.unique(pairs, return_inverse=True)[1]
        return self._numbers[length]


_NONE: npt.NDArray[np.int64] = np.empty(0, np.int64)


def _share(found: Sequence[bool]) -> float:
    return sum(found) / len(found) if found else 0.0


def _repeated_share(parts: Sequence[str]) -> float:
    return sum(count - 1 for count in Counter(parts).values()) / len(parts) if parts else 0.0
