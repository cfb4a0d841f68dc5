"""The engine that quotes: one embedder for all requests, a reader for each.

Guaranteed: what ExtractiveReader guarantees; a request is judged by its own statistics and in its index's language.
Not guaranteed: an answer without passages; there is nothing to quote then, and a request for one is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ray_jobs.answer.analyzers import Analyzers
from ray_jobs.answer.condense import condense_by_rule
from ray_jobs.answer.engine import Message, Request
from ray_jobs.answer.evidence import calibration_for
from ray_jobs.answer.extractive import ExtractiveReader, ReaderConfig, SentenceEmbedder
from ray_jobs.answer.protocol import Generator
from ray_jobs.errors import NotFoundError, UsageError
from ray_jobs.models.embedder_identity import EmbedderIdentity
from ray_jobs.models.remembering import RememberingEmbedder


class ReaderEmbedder(SentenceEmbedder, Protocol):
    """An embedder of sentences that says who it is."""

    @property
    def identity(self) -> EmbedderIdentity:
        """The model, by whose name its calibration is found."""
        ...


EmbedderLoader = Callable[[], ReaderEmbedder]


class ExtractiveEngine:
    """Readers that share an embedder."""

    needs_passages = True

    def __init__(self, name: str, embedder: ReaderEmbedder, config: ReaderConfig) -> None:
        self.models = (name,)
        # Questions come again and again to the same passages, and embedding their sentences is most of the work.
        self._embedder = RememberingEmbedder(embedder)
        self._config = config
        self._calibration = calibration_for(embedder.identity.model)
        self._analyzers = Analyzers()

    def generator(self, request: Request) -> Generator:
        """A reader for one request.

        Raises NotFoundError for another model, UsageError for a question without passages.
        """
        self._check(request.model)
        check_passages(request)
        statistics = request.statistics
        analyzer = self._analyzers(request.language)
        return ExtractiveReader(self._embedder, analyzer, lambda _: statistics, self._calibration, self._config)

    def condense(self, messages: Sequence[Message], model: str) -> str:
        """The last question, with words of the earlier ones where it has too few of its own."""
        self._check(model)
        return condense_by_rule(messages, self._analyzers("english"))

    def _check(self, model: str) -> None:
        if model not in self.models:
            raise NotFoundError(f"model={model}: not served here; expected {self.models[0]}")


def check_passages(request: Request) -> None:
    """Raise UsageError for a request without retrieval, which only a language model can answer."""
    if request.closed_book:
        raise UsageError(
            f"model={request.model} only quotes and has nothing to quote without retrieval: "
            "leave retrieval on, or deploy a language model"
        )
