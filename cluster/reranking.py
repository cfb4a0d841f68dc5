"""What a command takes to rerank what it found, and the reranker that comes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, Field, model_validator
from pydantic_settings import CliDualFlag

from ray_jobs.errors import UsageError
from ray_jobs.index.reranking import DEFAULT_DEPTH, Reranking
from ray_jobs.models.reranker_config import RerankerConfig, RerankerOptions

if TYPE_CHECKING:
    from ray_jobs.index.manifest import Manifest
    from ray_jobs.storage import Storage


class RerankingSettings(BaseModel):
    """Keys of a command that can rerank. Naming a reranker asks for reranking."""

    rerank: CliDualFlag[bool] = Field(
        False, description="rerank what was found: by --reranker, else by the reranker that Tandem carries"
    )
    reranker: str | None = Field(
        None, min_length=1, description="rerank by this model: name or path of a cross-encoder, or of an adapter of one"
    )
    rerank_depth: int = Field(
        DEFAULT_DEPTH, ge=1, le=10_000, description="chunks that are retrieved for the reranker, and never fewer than k"
    )
    rerank_weight: float | None = Field(
        None,
        gt=0,
        le=1,
        description="the reranker's share in the order, retrieval has the rest; None: 1, or what suits Tandem's own",
    )
    reranker_options: RerankerOptions = Field(RerankerOptions(), description="how the reranker runs")

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if self.reranker is not None and not self.rerank and "rerank" in self.model_fields_set:
            raise ValueError(f"rerank=false with reranker={self.reranker!r}: leave one of them out")
        return self

    def load_reranking(self, storage: Storage, index: Manifest) -> Reranking | None:
        """The reranker, loaded; None where none is asked for, or Tandem's own would be and does not suit the index.

        `storage` is the store, whose models count too. Raises UsageError where reranking was asked for by name alone.
        """
        from ray_jobs.answer.defaults import default_reranker, rerank_weight

        name = self.reranker or (default_reranker([index]) if self.rerank else None)
        if name is None:
            if self.rerank and "rerank" in self.model_fields_set:
                raise UsageError(
                    f"rerank=true and no reranker that suits index={index.index}: give --reranker NAME, the name or "
                    "path of a model"
                )
            return None
        from ray_jobs.models.reranker import Reranker

        config = RerankerConfig(model=name, **self.reranker_options.model_dump())
        weight = rerank_weight(name, self.rerank_weight)
        return Reranking(Reranker.load(config, storage), self.rerank_depth, weight)
