"""The engine that reads: one reader for all requests.

Guaranteed: what AnswerReader and QuotingEngine guarantee.
"""

from __future__ import annotations

from ray_jobs.answer.engine import Request
from ray_jobs.answer.protocol import Generator
from ray_jobs.answer.quoting_engine import QuotingEngine
from ray_jobs.answer.reading import AnswerReader, SpanReader


class ReadingEngine(QuotingEngine):
    """Generators that share a reader."""

    def __init__(self, name: str, reader: SpanReader) -> None:
        super().__init__(name)
        self._reader = reader

    def _generator(self, request: Request) -> Generator:
        return AnswerReader(self._reader)
