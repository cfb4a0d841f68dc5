"""Answers by a model that reads: the exact span of one passage, then the sentence in which it stands, both cited.

Guaranteed: everything in an answer but the markers is quoted, white space aside, and each citation's span cuts its
quote exactly; the same question and passages give the same answer; when no passage has a span whose margin reaches the
reader's threshold, the answer is ABSTENTION, without citations and not grounded. Of passages with equal margins the
first one answers.

Not guaranteed: that the span is right. Answers that need several passages combined, counting or reasoning are beyond a
reader of spans.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from ray_jobs.answer.grounding import hides_markers
from ray_jobs.answer.protocol import AnswerEvent, Citation, Passage
from ray_jobs.answer.quotable import sentence_around
from ray_jobs.answer.quoting import QuotingGenerator, quoted
from ray_jobs.errors import ModelError

if TYPE_CHECKING:
    from ray_jobs.models.reader import PassageSpan


class SpanReader(Protocol):
    """The part of ray_jobs.models.reader.Reader that answers need."""

    @property
    def threshold(self) -> float:
        """The margin from which a span is an answer."""
        ...

    def spans(self, question: str, passages: Sequence[str]) -> Sequence[PassageSpan | None]:
        """The best span of each passage; None for a passage without a word."""
        ...


class AnswerReader(QuotingGenerator):
    """A Generator that gives the span which `reader` prefers most to no answer."""

    def __init__(self, reader: SpanReader) -> None:
        super().__init__()
        self._reader = reader

    def _answer(self, question: str, passages: Sequence[Passage]) -> Iterator[AnswerEvent]:
        """The span and its sentence.

        Raises UsageError for a question that is empty or too long for the reader, ModelError when the reader returns
        another number of spans than it was given passages.
        """
        started = time.perf_counter()
        citations = self._citations(question, passages)
        yield from quoted(citations, {"read": time.perf_counter() - started})

    def _citations(self, question: str, passages: Sequence[Passage]) -> tuple[Citation, ...]:
        """What the best span that can be quoted is quoted as; () when none is good enough."""
        spans = self._reader.spans(question, [passage.text for passage in passages])
        if len(spans) != len(passages):
            raise ModelError(f"reader returned {len(spans)} spans for {len(passages)} passages: wrong model?")
        good = [
            (passage, span)
            for passage, span in zip(passages, spans, strict=True)
            if span is not None and span.margin >= self._reader.threshold
        ]
        # Sorting is stable: passages come best first, and so they stay among equals.
        for passage, span in sorted(good, key=lambda found: -found[1].margin):
            exact, around = (span.start, span.end), sentence_around(passage.text, span.start, span.end)
            quotes = [part for part in dict.fromkeys((exact, around)) if not hides_markers(passage.text[slice(*part)])]
            if quotes:
                return tuple(Citation.of(passage, start, end) for start, end in quotes)
        return ()
