"""The embedder that belongs to an index: the same model, on whatever engine suits the machine that asks."""

from __future__ import annotations

from ray_jobs.models.embedder import Embedder, EmbedderConfig, EmbedderIdentity, check_compatible
from ray_jobs.storage import Storage


def config_for_queries(config: EmbedderConfig | None, index: EmbedderIdentity) -> EmbedderConfig:
    """`config` with what it leaves open taken from the index: the model, its maximum length, and the fake engine."""
    given = {} if config is None else config.model_dump(exclude_unset=True)
    engine = "fake" if index.engine == "fake" else "auto"
    return EmbedderConfig.model_validate(
        {"model": index.model, "engine": engine, "max_tokens": index.max_tokens, **given}
    )


def load_for_queries(config: EmbedderConfig | None, index: EmbedderIdentity, store: Storage | None = None) -> Embedder:
    """Load an embedder for queries; raises UsageError when it is not the model that made the index.

    `store` is the one whose models count, if any.
    """
    embedder = Embedder.load(config_for_queries(config, index), store)
    check_compatible(index, embedder.identity)
    return embedder
