"""Which sentence of a passage supports a statement best, and how much of an answer its passages support at all.

Both compare words as lexical search does: analysed terms, each counted once. Support is the share of an answer's
terms, sentence by sentence, that stand in the passages cited for the sentence: by the markers in it or behind it, or by
the next ones of its paragraph. A sentence for which nothing is cited is supported by nothing.

Guaranteed: pure functions of the words; a citation cuts its quote exactly and is no part of a marker. Not guaranteed:
truth. Measured on SciFact's test claims, with the default threshold of 0.5: of 216 statements 92 % reach it by the
abstract that supports them, 3 % by any other, but 50 % by the one that lexical search ranks tenth: citing something
unrelated is noticed, contradiction is not. An answer in another language than its sources finds no support.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ray_jobs.answer.grounding import cited_numbers
from ray_jobs.answer.markers import without_markers
from ray_jobs.answer.protocol import Citation, Passage
from ray_jobs.answer.quotable import quotable_sentences, sentence_spans
from ray_jobs.answer.quoting import ABSTENTION
from ray_jobs.index.analysis import Analyzer

_LEADING_MARKERS = re.compile(r"(?:\s*\[\d{1,4}\])+")
# Quotes are taken out of an answer before its markers are read: none may be, hold or touch a part of one.
_MARKER_LIKE = re.compile(r"\[\d{1,4}\]|\[\d{0,4}$|^\d{0,4}\]|^\d{1,4}$")


@dataclass(frozen=True)
class _Sentence:
    passage: Passage
    start: int
    end: int
    terms: frozenset[str]


class Sources:
    """The passages of one answer, by number, ready to be compared with what it says."""

    def __init__(self, passages: Sequence[Passage], analyzer: Analyzer) -> None:
        self._analyzer = analyzer
        self._terms = {
            passage.number: frozenset(analyzer.terms(f"{passage.title}\n{passage.heading}\n{passage.text}"))
            for passage in passages
        }
        self._sentences = {passage.number: _sentences(passage, analyzer) for passage in passages}
        held_by = Counter(term for own in self._sentences.values() for sentence in own for term in sentence.terms)
        total = sum(map(len, self._sentences.values()))
        self._weights = {term: math.log(1 + total / count) for term, count in held_by.items()}

    def citation(self, number: int, statement: str) -> Citation | None:
        """The sentence of passage `number` that shares most with `statement`, by the weight of rare words.

        The first of equals; None when there is no such passage, or nothing in it that can be quoted.
        """
        sentences = self._sentences.get(number)
        if not sentences:
            return None
        said = frozenset(self._analyzer.terms(statement))

        def shared(sentence: _Sentence) -> tuple[float, int]:
            return sum(self._weights[term] for term in said & sentence.terms), -len(sentence.terms)

        best = max(sentences, key=shared)
        return Citation.of(best.passage, best.start, best.end)

    def support(self, text: str) -> float:
        """The share of the terms of an answer that its citations hold, 0 to 1; 0 for an answer without words."""
        held = total = 0
        for statement, numbers in statements(text):
            terms = set(self._analyzer.terms(statement))
            cited = frozenset[str]().union(*(self._terms.get(number, frozenset()) for number in numbers))
            held += len(terms & cited)
            total += len(terms)
        return held / total if total else 0.0


def statements(text: str) -> list[tuple[str, tuple[int, ...]]]:
    """The sentences of an answer, without markers, and the numbers cited for each."""
    found: list[tuple[str, tuple[int, ...]]] = []
    for paragraph in text.splitlines():
        own: list[tuple[str, tuple[int, ...]]] = []
        cited: tuple[int, ...] = ()
        for sentence in reversed(_marked_sentences(paragraph)):
            cited = tuple(cited_numbers(sentence)) or cited
            own.append((without_markers(sentence).strip(), cited))
        found += reversed(own)
    return found


def abstains(text: str) -> bool:
    """Whether an answer begins by saying that there is none."""
    return _letters(without_markers(text)).startswith(_letters(ABSTENTION))


def _marked_sentences(paragraph: str) -> list[str]:
    """Sentences with their markers; those that stand behind the full stop belong to the sentence before it."""
    sentences: list[str] = []
    for start, end in sentence_spans(paragraph, 0, len(paragraph)):
        sentence = paragraph[start:end]
        if sentences and (leading := _LEADING_MARKERS.match(sentence)):
            sentences[-1] += leading[0]
            sentence = sentence[leading.end() :]
        if sentence.strip():
            sentences.append(sentence)
    return sentences


def _sentences(passage: Passage, analyzer: Analyzer) -> list[_Sentence]:
    text = passage.text
    for spans in (quotable_sentences(text), sentence_spans(text, 0, len(text))):
        usable = [(start, end) for start, end in spans if not _MARKER_LIKE.search(" ".join(text[start:end].split()))]
        if usable:
            return [_Sentence(passage, s, e, frozenset(analyzer.terms(text[s:e]))) for s, e in usable]
    return []


def _letters(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())
