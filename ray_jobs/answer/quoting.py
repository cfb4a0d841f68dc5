"""Answers that consist of quotes: what their generators have in common.

Guaranteed: everything in an answer but the markers is quoted, white space aside; without a quote the answer is
ABSTENTION, without citations and not grounded.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

from ray_jobs.answer.protocol import Answer, AnswerEvent, Citation, Cited, Final, Passage, TextDelta

ABSTENTION = "The corpus does not answer this question."


class QuotingGenerator(ABC):
    """A Generator that can be cancelled between two quotes."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """End the running stream before its next event."""
        self._cancelled.set()

    def stream(self, question: str, passages: Sequence[Passage]) -> Iterator[AnswerEvent]:
        """A TextDelta and a Cited for each quote, then Final; raises what `_answer` says."""
        self._cancelled.clear()
        for event in self._answer(question, passages):
            if self._cancelled.is_set():
                return
            yield event

    @abstractmethod
    def _answer(self, question: str, passages: Sequence[Passage]) -> Iterator[AnswerEvent]: ...


def quoted(citations: Sequence[Citation], timings: Mapping[str, float]) -> Iterator[AnswerEvent]:
    """The events of an answer that quotes these, a line each, or abstains where there are none."""
    said = ""
    for citation in citations:
        separator = "\n" if said else ""
        delta = f"{separator}{' '.join(citation.quote.split())} [{citation.number}]"
        said += delta
        yield TextDelta(delta)
        yield Cited(citation)
    if not citations:
        said = ABSTENTION
        yield TextDelta(said)
    yield Final(Answer(said, tuple(citations), grounded=bool(citations), timings=dict(timings)))
