"""What made the vectors of an index, so that a query is never embedded by another model.

Guaranteed: two embedders that `check_compatible` accepts have vectors of one model (cosine of the same text at least
0.999, whatever engine and precision). Not guaranteed: equal bits.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from ray_jobs.errors import UsageError
from ray_jobs.models.embedder_config import EngineName, Precision
from ray_jobs.models.engine import Similarity


class EmbedderIdentity(BaseModel):
    """The part of a manifest that names the embedder.

    `revision` is a hash of the model's files or a commit of the hub; two names of one revision are one model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    revision: str
    engine: EngineName
    precision: Precision
    dimension: int
    max_tokens: int
    normalized: bool
    similarity: Similarity
    query_prompt: str
    document_prompt: str


def check_compatible(index: EmbedderIdentity, embedder: EmbedderIdentity) -> None:
    """Raise UsageError unless vectors of `embedder` may be compared with those of the index.

    Engine, precision and `max_tokens` may differ; revision, dimension, normalisation and similarity may not.
    """
    for key in ("revision", "dimension", "normalized", "similarity"):
        expected, found = getattr(index, key), getattr(embedder, key)
        if expected != found:
            raise UsageError(
                f"embedder {embedder.model!r} has {key}={found!r}, but the index was built by {index.model!r} with "
                f"{key}={expected!r}: use that model, or build a new index with this one"
            )
