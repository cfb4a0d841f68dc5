"""Which reader and which reranker are used where nobody names one: those that Tandem carries.

They were trained on English text, so they are chosen only for indices in English; and only for those of a real
embedder, since what a fake one finds is not worth reading. Guaranteed: None where Tandem carries no such model, or for
any of the indices it would not suit.
"""

from __future__ import annotations

from collections.abc import Sequence

from ray_jobs.index.manifest import Manifest
from ray_jobs.models.resolve import shipped_models

READER = "tandem-reader"
RERANKER = "tandem-reranker"
_LANGUAGE = "english"
_WEIGHT = 0.55
"""The carried reranker's share in the order of hits, chosen by tests/bench/tune_reranking.py on training data alone."""


def default_reader(indices: Sequence[Manifest]) -> str | None:
    """The name of the reader for these indices; None: sentences are quoted without a model."""
    return _chosen(READER, indices)


def default_reranker(indices: Sequence[Manifest]) -> str | None:
    """The name of the reranker for these indices; None: hits stay in the order of retrieval."""
    return _chosen(RERANKER, indices)


def rerank_weight(model: str, asked: float | None) -> float:
    """The share of a reranker in the order of hits: what was asked for, else what suits it; 1: all of it."""
    if asked is not None:
        return asked
    return _WEIGHT if model == RERANKER else 1.0


def _chosen(name: str, indices: Sequence[Manifest]) -> str | None:
    suits = all(index.lexical.language == _LANGUAGE and index.embedder.engine != "fake" for index in indices)
    return name if suits and name in shipped_models() else None
