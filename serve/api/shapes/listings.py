"""What is served: models, indices, deployments, health."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from ray_jobs.corpus.metadata import ColumnType
from serve.api.shapes.shared import CoverageReply


class ModelReply(BaseModel):
    """One model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "tandem"
    kind: Literal["generator", "embedder", "reranker"]


class ModelsReply(BaseModel):
    """All models, the default generator first."""

    object: Literal["list"] = "list"
    data: list[ModelReply]


class IndexReply(BaseModel):
    """One index."""

    id: str
    object: Literal["index"] = "index"
    snapshot: int | None = Field(description="the version that answers; null before any is loaded")
    documents: int | None = Field(description="null for a caller that may see only some of them")
    chunks: int | None = Field(description="as documents")
    embedder: str
    metadata: dict[str, ColumnType] = Field(description="fields that a filter may ask about, and their types")
    default: bool = Field(description="whether it is searched where none is named")


class IndexesReply(BaseModel):
    """All indices that the caller may see."""

    object: Literal["list"] = "list"
    data: list[IndexReply]


class DeploymentReply(BaseModel):
    """One deployment."""

    name: str
    status: str
    replicas: int
    wanted: int


class IndexStatusReply(BaseModel):
    """What of an index is there."""

    id: str
    snapshot: int | None = Field(description="the version that answers")
    loading: int | None = Field(description="the version that will answer next")
    coverage: CoverageReply


class StatusReply(BaseModel):
    """How the server is."""

    object: Literal["status"] = "status"
    deployments: list[DeploymentReply]
    indexes: list[IndexStatusReply]


class LiveReply(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class ReadyReply(BaseModel):
    """Whether everything is there. Names are not told, since no key is asked for; see /v1/status."""

    status: Literal["ok", "not ready"]
    indexes: int = Field(description="how many there are")
    indexes_ready: int = Field(description="how many answer with all their documents")
    partitions_missing: int
