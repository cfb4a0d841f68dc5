"""What a command takes to rerank what it found, and the reranker that comes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, Field, model_validator

from ray_jobs.index.reranking import DEFAULT_DEPTH, Reranking
from ray_jobs.models.reranker_config import RerankerConfig, RerankerOptions
from ray_jobs.storage import models_folder

if TYPE_CHECKING:
    from ray_jobs.storage import Storage


class RerankingSettings(BaseModel):
    """Keys of a command that can rerank. Naming a reranker asks for reranking."""

    rerank: bool = Field(False, description="rerank what was found; needs --reranker")
    reranker: str | None = Field(
        None, min_length=1, description="rerank by this model: name or path of a cross-encoder, or of an adapter of one"
    )
    rerank_depth: int = Field(
        DEFAULT_DEPTH, ge=1, le=10_000, description="chunks that are retrieved for the reranker, and never fewer than k"
    )
    reranker_options: RerankerOptions = Field(RerankerOptions(), description="how the reranker runs")

    @model_validator(mode="after")
    def _a_model_to_rerank_by(self) -> Self:
        if self.rerank and self.reranker is None:
            raise ValueError("rerank=true and no reranker: expected the name or path of a model; give --reranker NAME")
        return self

    def load_reranking(self, storage: Storage) -> Reranking | None:
        """The reranker, loaded; None where none is asked for. `storage` is the store, whose models count too."""
        if self.reranker is None:
            return None
        from ray_jobs.models.reranker import Reranker

        config = RerankerConfig(model=self.reranker, **self.reranker_options.model_dump())
        return Reranking(Reranker.load(config, models_folder(storage)), self.rerank_depth)
