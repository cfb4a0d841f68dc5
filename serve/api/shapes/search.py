"""A search and its results."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from serve.api.shapes.json_types import NotBlank
from serve.api.shapes.shared import CoverageReply, Metadata, RetrievalFields, Timings


class SearchRequest(RetrievalFields):
    """A query."""

    query: NotBlank
    nprobe: int | None = Field(None, ge=1, le=1_000_000, description="inverted lists to scan; null: the index's own")


class HitReply(BaseModel):
    """One result."""

    rank: int
    doc_id: str
    chunk_id: str
    score: float
    scores: dict[str, float] = Field(description="a score a stage")
    text: str
    title: str
    heading: str
    page: int | None
    source: str
    start: int = Field(description="code points into the text of the document")
    end: int
    metadata: Metadata


class SearchResults(BaseModel):
    """Hits of one snapshot, best first."""

    object: Literal["search.results"] = "search.results"
    index: str
    snapshot: int
    hits: list[HitReply]
    coverage: CoverageReply
    degraded: list[str] = Field(description="what was left out: partition, rerank")
    timings: Timings = Field(description="milliseconds a stage")
