"""Engines that quote: what they have in common beside the generators that they make.

Guaranteed: a request for another model, or without retrieval, is refused; questions are condensed by rule, in English.
Not guaranteed: an answer without passages; there is nothing to quote then.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from ray_jobs.answer.analyzers import Analyzers
from ray_jobs.answer.condense import condense_by_rule
from ray_jobs.answer.engine import Message, Request
from ray_jobs.answer.protocol import Generator
from ray_jobs.errors import NotFoundError, UsageError


class QuotingEngine(ABC):
    """An Engine of one model that only quotes."""

    needs_passages = True

    def __init__(self, name: str) -> None:
        self.models = (name,)
        self._analyzers = Analyzers()

    def generator(self, request: Request) -> Generator:
        """A generator for one request.

        Raises NotFoundError for another model, UsageError for a question without retrieval, which only a language
        model can answer.
        """
        self._check(request.model)
        if request.closed_book:
            raise UsageError(
                f"model={request.model} only quotes and has nothing to quote without retrieval: "
                "leave retrieval on, or deploy a language model"
            )
        return self._generator(request)

    def condense(self, messages: Sequence[Message], model: str) -> str:
        """The last question, with words of the earlier ones where it has too few of its own."""
        self._check(model)
        return condense_by_rule(messages, self._analyzers("english"))

    @abstractmethod
    def _generator(self, request: Request) -> Generator: ...

    def _check(self, model: str) -> None:
        if model not in self.models:
            raise NotFoundError(f"model={model}: not served here; expected {self.models[0]}")
