"""The engine that quotes: one embedder for all requests, a reader for each.

Guaranteed: what ExtractiveReader and QuotingEngine guarantee; a request is judged by its own statistics and in its
index's language.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ray_jobs.answer.engine import Request
from ray_jobs.answer.evidence import calibration_for
from ray_jobs.answer.extractive import ExtractiveReader, ReaderConfig, SentenceEmbedder
from ray_jobs.answer.protocol import Generator
from ray_jobs.answer.quoting_engine import QuotingEngine
from ray_jobs.models.embedder_identity import EmbedderIdentity
from ray_jobs.models.remembering import RememberingEmbedder


class ReaderEmbedder(SentenceEmbedder, Protocol):
    """An embedder of sentences that says who it is."""

    @property
    def identity(self) -> EmbedderIdentity:
        """The model, by whose name its calibration is found."""
        ...


EmbedderLoader = Callable[[], ReaderEmbedder]


class ExtractiveEngine(QuotingEngine):
    """Readers that share an embedder."""

    def __init__(self, name: str, embedder: ReaderEmbedder, config: ReaderConfig) -> None:
        super().__init__(name)
        # Questions come again and again to the same passages, and embedding their sentences is most of the work.
        self._embedder = RememberingEmbedder(embedder)
        self._config = config
        self._calibration = calibration_for(embedder.identity.model)

    def _generator(self, request: Request) -> Generator:
        statistics = request.statistics
        analyzer = self._analyzers(request.language)
        return ExtractiveReader(self._embedder, analyzer, lambda _: statistics, self._calibration, self._config)
