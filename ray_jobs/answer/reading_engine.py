"""The engine that reads: one reader for all requests.

Guaranteed: what AnswerReader guarantees. Not guaranteed: an answer without passages; there is nothing to read then, and
a request for one is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

from ray_jobs.answer.analyzers import Analyzers
from ray_jobs.answer.condense import condense_by_rule
from ray_jobs.answer.engine import Message, Request
from ray_jobs.answer.extractive_engine import check_passages
from ray_jobs.answer.protocol import Generator
from ray_jobs.answer.reading import AnswerReader, SpanReader
from ray_jobs.errors import NotFoundError


class ReadingEngine:
    """Generators that share a reader."""

    needs_passages = True

    def __init__(self, name: str, reader: SpanReader) -> None:
        self.models = (name,)
        self._reader = reader
        self._analyzers = Analyzers()

    def generator(self, request: Request) -> Generator:
        """A generator for one request.

        Raises NotFoundError for another model, UsageError for a question without passages.
        """
        self._check(request.model)
        check_passages(request)
        return AnswerReader(self._reader)

    def condense(self, messages: Sequence[Message], model: str) -> str:
        """The last question, with words of the earlier ones where it has too few of its own."""
        self._check(model)
        return condense_by_rule(messages, self._analyzers("english"))

    def _check(self, model: str) -> None:
        if model not in self.models:
            raise NotFoundError(f"model={model}: not served here; expected {self.models[0]}")
