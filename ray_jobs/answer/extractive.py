"""Answers by quoting: the sentences of the passages that speak most to the question, each with its citation.

Guaranteed: everything in an answer but the markers is quoted, white space aside, and each citation's span cuts its
quote exactly; the same question, passages and vectors give the same answer; when no sentence reaches the support
that the calibration asks for, the answer is ABSTENTION, without citations and not grounded.

Not guaranteed: that a quoted sentence is right, or that it answers: it is the best-supported one (see ``evidence``).
Answers that need several passages combined, counting or reasoning are beyond a quoting reader.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from ray_jobs.answer.evidence import Calibration, Evidence, coverage
from ray_jobs.answer.protocol import AnswerEvent, Citation, Passage
from ray_jobs.answer.quotable import quotable_sentences
from ray_jobs.answer.quoting import QuotingGenerator, quoted
from ray_jobs.errors import ModelError
from ray_jobs.index.analysis import Analyzer
from ray_jobs.index.lexical import LexicalStatistics

_CONTEXT_LENGTH = 80
_SAME_MEANING = 0.92


class SentenceEmbedder(Protocol):
    """The part of ray_jobs.models.embedder.Embedder that a reader needs."""

    def encode_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Vectors of questions, (n, d)."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Vectors of passages, (n, d)."""
        ...


class ReaderConfig(BaseModel):
    """How much to quote."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_quotes: int = Field(3, ge=1, description="sentences quoted at most")
    min_support: float = Field(0.5, ge=0, le=1, description="support below which the best sentence is not quoted")
    margin: float = Field(0.25, ge=0, description="how far below the best sentence a further one may score")
    # On the calibration questions the best of some 60 sentences was among these in 99.95 % of cases.
    max_candidates: int = Field(32, ge=1, description="sentences embedded for a question")


@dataclass(frozen=True)
class _Candidate:
    passage: Passage
    start: int
    end: int
    coverage: float
    passage_coverage: float

    @property
    def quote(self) -> str:
        return self.passage.text[self.start : self.end]


class ExtractiveReader(QuotingGenerator):
    """A Generator that quotes. ``statistics`` tells, for analysed terms, how rare they are in the whole index."""

    def __init__(
        self,
        embedder: SentenceEmbedder,
        analyzer: Analyzer,
        statistics: Callable[[set[str]], LexicalStatistics],
        calibration: Calibration,
        config: ReaderConfig | None = None,
    ) -> None:
        super().__init__()
        self._embedder = embedder
        self._analyzer = analyzer
        self._statistics = statistics
        self._calibration = calibration
        self._config = config or ReaderConfig()

    def _answer(self, question: str, passages: Sequence[Passage]) -> Iterator[AnswerEvent]:
        """The best-supported sentences.

        Raises ModelError when the embedder returns another number of vectors than it was given texts.
        """
        started = time.perf_counter()
        candidates = self._candidates(question, passages)
        selected = time.perf_counter()
        chosen = self._quote(question, candidates) if candidates else []
        timings = {"select": selected - started, "judge": time.perf_counter() - selected}
        yield from quoted([Citation.of(quote.passage, quote.start, quote.end) for quote in chosen], timings)

    def _candidates(self, question: str, passages: Sequence[Passage]) -> list[_Candidate]:
        """What could be quoted; above the limit, the sentences that share most with the question."""
        terms = self._analyzer.terms(question)
        statistics = self._statistics(set(terms))
        found = []
        for passage in passages:
            framed = {*self._analyzer.terms(f"{passage.title}\n{passage.heading}\n{passage.text}")}
            in_passage = coverage(terms, framed, statistics)
            for start, end in quotable_sentences(passage.text):
                in_sentence = coverage(terms, {*self._analyzer.terms(passage.text[start:end])}, statistics)
                found.append(_Candidate(passage, start, end, in_sentence, in_passage))
        # Sorting is stable: passages come best first, and so do their sentences among equals.
        return sorted(found, key=lambda candidate: -candidate.coverage)[: self._config.max_candidates]

    def _quote(self, question: str, candidates: list[_Candidate]) -> list[_Candidate]:
        vectors = self._embedder.encode_documents([f"{_context(c.passage)}: {c.quote}" for c in candidates])
        asked = self._embedder.encode_queries([question])
        if len(vectors) != len(candidates) or len(asked) != 1:
            raise ModelError(f"embedder returned {len(vectors)} vectors for {len(candidates)} sentences: wrong model?")
        vectors, asked = _unit(vectors), _unit(asked)
        evidence = [
            Evidence(float(similarity), candidate.coverage, candidate.passage_coverage)
            for similarity, candidate in zip(vectors @ asked[0], candidates, strict=True)
        ]
        order = sorted(range(len(candidates)), key=lambda i: -evidence[i].rank_score)
        least = evidence[order[0]].rank_score - self._config.margin
        chosen: list[int] = []
        for i in order:
            supported = self._calibration.support(evidence[i]) >= self._config.min_support
            if len(chosen) == self._config.max_quotes or not supported or evidence[i].rank_score < least:
                break
            if all(vectors[i] @ vectors[j] < _SAME_MEANING for j in chosen):
                chosen.append(i)
        return [candidates[i] for i in chosen]


def _context(passage: Passage) -> str:
    """What "it" and "this function" are: the nearest heading, without a signature, or the title."""
    nearest = passage.heading.rsplit(" > ", 1)[-1] or passage.title
    return nearest.split("(", 1)[0][:_CONTEXT_LENGTH].strip()


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.float32(1e-12)), np.float32)
