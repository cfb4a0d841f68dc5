"""Parts that several calls have in common."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, Field

from ray_jobs.index.merge import By
from ray_jobs.index.search import Mode
from serve.api.shapes.json_types import Strict
from serve.messages import Coverage


class RetrievalFields(Strict):
    """What is to be retrieved; null is the server's default."""

    index: str | None = Field(None, max_length=255, description="name of the index, see /v1/indexes")
    mode: Mode | None = Field(None, description="by meaning (dense), by words (lexical) or both (hybrid)")
    k: int | None = Field(None, ge=1, le=10_000, description="number of hits")
    by: By | None = Field(None, description="what k counts; a document stands for its best chunk")
    where: str | None = Field(
        None, max_length=10_000, description="filter on metadata, such as \"lang = 'en' and year >= 2020\""
    )
    rerank: bool | None = Field(None, description="order the hits by a cross-encoder")
    min_coverage: float | None = Field(
        None, ge=0, le=1, description="share of the documents that must have been searched, else 503"
    )


class CoverageReply(BaseModel):
    """How much of a snapshot was searched."""

    partitions_total: int
    partitions_ok: int
    documents: float = Field(description="share of the snapshot's documents that was searched, 0 to 1")
    degraded: bool
    missing: list[int] = Field(description="numbers of the partitions that did not answer")

    @classmethod
    def of(cls, coverage: Coverage) -> Self:
        """The coverage of a reply."""
        return cls(
            partitions_total=coverage.partitions_total,
            partitions_ok=coverage.partitions_ok,
            documents=coverage.documents,
            degraded=coverage.degraded,
            missing=list(coverage.missing),
        )


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = Field(description="the field that is wrong")
    code: str


class ErrorReply(BaseModel):
    """Every error."""

    error: ErrorDetail


Timings = dict[str, float]
"""Milliseconds a stage; only stages that ran."""

Metadata = dict[str, Any]
"""Values of metadata columns."""


def milliseconds(seconds: dict[str, float]) -> Timings:
    """Seconds a stage, as replies have them."""
    return {stage: round(time * 1000, 3) for stage, time in seconds.items()}
