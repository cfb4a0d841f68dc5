"""Text to the terms that lexical search compares.

Guaranteed: the same text and configuration give the same terms in the same order, on every machine and in every
process, whatever was analysed before; a query and a document are analysed alike. Words are compared after NFKC,
case folding and (for English) removal of accents, stop words and inflection. Identifiers are found whole and by their
parts: ``ray.data.map_batches`` and ``RayCluster`` answer to ``map``, ``cluster`` and to their own spelling.

Not guaranteed: word boundaries in scripts that write none. Han, Kana, Hangul, Thai, Lao, Khmer and Burmese are cut
into overlapping pairs of characters, so a query of one single character finds only where it stands alone. A query of
stop words only has no terms. Numbers are compared as written: ``1,000`` is two terms and ``1000`` is one.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from itertools import chain, pairwise
from typing import TYPE_CHECKING

from ray_jobs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

ENGLISH_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a an the this that these those and or but nor if then than so as of at by for from in into on onto to with
        about over under out up down off is am are was were be been being do does did has have had having will would
        shall should can could may might must it its he she they them his her their there here i we you your our my me
        us him who whom whose which what when where why how not no such s t
        """,
    )
)

MAX_TERM_LENGTH = 100
"""Longer terms (keys, hashes, base64) are cut to this many code points, in queries as in documents."""

_CACHED_WORDS = 1 << 18
_PAIRED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Burmese, Khmer
    "\u3005\u3007\u3040-\u30ff\u31f0-\u31ff"  # iteration mark, ideographic zero, Kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\uac00-\ud7af"  # Hangul
)
_PAIRED_RUN = re.compile(f"([{_PAIRED}]+)")
_ASCII_WORD = re.compile(r"\w+(?:\.\w+)*", re.ASCII)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z][a-z])|(?<=[A-Z])(?=[A-Z][a-z]{2})")


class Analyzer:
    """Cuts text into terms; may be shared by threads. Never shipped between processes: each makes its own.

    ``language`` is a Snowball stemmer's name, or "none" to compare words as they are written; it is recorded with the
    index, since queries must be analysed as the documents were. Raises UsageError for any other name.
    """

    def __init__(self, language: str = "english") -> None:
        import Stemmer

        if language not in (known := ["none", *Stemmer.algorithms()]):
            raise UsageError(f"language = {language!r}: expected one of {', '.join(known)}")
        self.language = language
        self._terms = _WordTerms(language)
        marks = _combining_marks()
        self._word = re.compile(rf"[\w{marks}]+(?:\.[\w{marks}]+)*")

    def terms(self, text: str) -> list[str]:
        """The terms of ``text`` in reading order, repeats kept; [] for a text without words."""
        ascii = text.isascii()
        words = _ASCII_WORD.findall(text) if ascii else self._word.findall(unicodedata.normalize("NFKC", text))
        return list(chain.from_iterable(map(self._terms.__getitem__, words)))


class _WordTerms(dict[str, tuple[str, ...]]):
    """Word as written -> its terms; computed once a word, since a corpus repeats few words many times."""

    def __init__(self, language: str) -> None:
        super().__init__()
        self._english = language == "english"
        self._stemmer = None
        if language != "none":
            import Stemmer

            self._stemmer = Stemmer.Stemmer(language, 0)
        # The stemmer keeps state during a call and is not safe to share without this.
        self._lock = threading.Lock()

    def __missing__(self, word: str) -> tuple[str, ...]:
        if not word.isascii() and _PAIRED_RUN.search(word):
            # Runs without spaces are hardly ever repeated: remembering them would push the words out.
            return tuple(chain.from_iterable(self._of_run(run) for run in _PAIRED_RUN.split(word) if run))
        terms = tuple(term[:MAX_TERM_LENGTH] for term in self._of_word(word))
        with self._lock:
            if len(self) >= _CACHED_WORDS:
                self.clear()
            self[word] = terms
        return terms

    def _of_run(self, run: str) -> Iterable[str]:
        if not _PAIRED_RUN.match(run):
            return self[run] if run.strip(".") else ()
        return [run] if len(run) == 1 else map("".join, pairwise(run))

    def _of_word(self, word: str) -> Iterable[str]:
        segments = [segment for segment in word.split(".") if segment.strip("_")]
        if len(segments) > 1:
            yield self._fold(word.strip("."))
        for segment in segments:
            parts = [part for part in segment.split("_") if part]
            if len(parts) > 1:
                yield self._fold(segment.strip("_"))
            for part in parts:
                humps = _HUMP.split(part)
                for form in (part, *humps) if len(humps) > 1 else (part,):
                    yield from self._stem(self._fold(form))

    def _fold(self, word: str) -> str:
        if word.isascii():
            return word.lower()
        folded = unicodedata.normalize("NFKC", word.casefold())
        if not self._english:
            return folded
        letters = unicodedata.normalize("NFD", folded)
        return unicodedata.normalize("NFC", "".join(c for c in letters if not "\u0300" <= c <= "\u036f"))

    def _stem(self, word: str) -> tuple[str, ...]:
        if not word or (self._english and word in ENGLISH_STOP_WORDS):
            return ()
        if self._stemmer is None:
            return (word,)
        with self._lock:
            return (str(self._stemmer.stemWord(word)),)


def _combining_marks() -> str:
    """Ranges, for a character class, of the marks that Python does not count as word characters: vowel signs, tones."""
    marks = [c for c in range(0x300, 0x10000) if unicodedata.category(chr(c)) in ("Mn", "Mc")]
    starts = [c for c in marks if unicodedata.category(chr(c - 1)) not in ("Mn", "Mc")]
    ends = [c for c in marks if unicodedata.category(chr(c + 1)) not in ("Mn", "Mc")]
    return "".join(f"{chr(start)}-{chr(end)}" for start, end in zip(starts, ends, strict=True))
