"""What a user may set of an ingest run; checked whole before any work."""

from __future__ import annotations

import hashlib
import json
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ray_jobs.corpus.chunking import ChunkingConfig
from ray_jobs.corpus.limits import Limits
from ray_jobs.corpus.masking import Kind
from ray_jobs.corpus.metadata import ColumnType
from ray_jobs.corpus.quality import Filters
from ray_jobs.index.layout import check_name
from ray_jobs.ingest.work import PieceLimits
from ray_jobs.models.embedder import EmbedderConfig
from ray_jobs.models.setting import EmbedderSetting
from ray_jobs.storage import DEFAULT_STORE


class Resources(BaseModel):
    """What each stage asks of the cluster; None is fitted to the cluster's size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage_cpus: float = Field(1, gt=0, description="CPUs of one task that reads documents")
    embed_cpus: int | None = Field(None, ge=1, description="CPUs of one embedding actor")
    embed_gpus: float = Field(1, gt=0, description="GPUs of one embedding actor on GPUs; below 1 they share one")
    embed_actors: int | None = Field(None, ge=1, description="embedding actors at most")
    build_cpus: float = Field(1, gt=0, description="CPUs of one task that builds a shard")
    stage_on: dict[str, float] = Field(
        {}, description="named resources of Ray that one task takes that reads documents"
    )
    embed_on: dict[str, float] = Field({}, description="named resources of Ray that one embedding actor takes")
    build_on: dict[str, float] = Field({}, description="named resources of Ray that one task takes that builds a shard")
    piece_seconds: float = Field(
        PieceLimits.seconds, gt=0, description="after which a group or shard is taken from its worker, twice"
    )
    piece_retries: int = Field(
        PieceLimits.retries, ge=0, description="workers lost with one group or shard before the run gives up"
    )


class Deduplicate(BaseModel):
    """Which documents stand for others of equal or nearly equal title and text, whatever their ids."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["off", "exact", "near"] = Field("off", description="'exact': equal content; 'near': similar, too")
    threshold: float = Field(0.8, ge=0.5, le=0.95, description="Jaccard similarity from which documents are near")
    within: tuple[str, ...] = Field((), description="metadata columns that both must share, such as a tenant")

    @property
    def on(self) -> bool:
        """Whether documents are compared."""
        return self.mode != "off"


class IngestConfig(BaseModel):
    """One run of the ingest job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[str, ...] = Field((), description="files, folders, globs, URIs, or pydoc:PACKAGE")
    index: str = Field(description="name of the index")
    store: str = Field(DEFAULT_STORE, description="path or URI of the store")
    id_prefix: str | None = Field(None, description="put before every document id of this run")
    shards: int | None = Field(None, ge=1, le=100_000, description="wished number of shards; the bound on bytes wins")
    shard_bytes: int = Field(2 << 30, ge=1 << 20, description="bytes of text and vectors in one shard at most")
    group_bytes: int = Field(4 << 20, ge=1 << 12, description="bytes of sources that one task reads at most")
    index_type: str = Field(
        "auto", description="'auto', 'Flat', 'IVF{n}_HNSW32,SQ8', 'HNSW32' or a FAISS factory string"
    )
    memory_budget: int | None = Field(
        None, gt=0, description="bytes of memory for the vectors of the index where it is served; None: no bound"
    )
    recall_target: float = Field(0.95, gt=0, le=1, description="recall@10 below which nothing is published")
    embedder: EmbedderSetting = Field(EmbedderConfig(), description="name or path of the embedder, or its keys")
    chunking: ChunkingConfig = ChunkingConfig()
    metadata: dict[str, ColumnType] = Field({}, description="types of metadata columns, in place of the inferred ones")
    limits: Limits = Limits()
    language: str = Field("english", description="language of stop words and stemming in lexical search")
    filters: Filters = Field(Filters(), description="what a document must keep to be indexed")
    deduplicate: Deduplicate = Deduplicate()
    mask: tuple[Kind, ...] = Field((), description="personal data to mask before anything is stored")
    prune: bool = Field(False, description="also remove documents that vanished from these sources")
    retrain: bool = Field(False, description="train the index anew and write all shards again")
    retry_dead_letters: bool = Field(
        False, description="read sources again of which something failed, though unchanged"
    )
    max_failed: float = Field(0.01, ge=0, le=1, description="share of documents that may fail")
    dry_run: bool = Field(False, description="print the plan and stop")
    resources: Resources = Resources()

    @field_validator("index")
    @classmethod
    def _name(cls, value: str) -> str:
        return check_name(value)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.sources:
            raise ValueError("sources is empty: expected at least one file, folder, glob, URI or pydoc:PACKAGE")
        if self.shard_bytes < self.group_bytes:
            raise ValueError(f"shard_bytes={self.shard_bytes} is below group_bytes={self.group_bytes}: raise it")
        return self

    def content_hash(self) -> str:
        """A hash of what decides how documents become rows: with another one, those of before are made anew."""
        deciding = self.model_dump(
            mode="json",
            include={
                "index_type": True,
                "embedder": {"model", "max_tokens"},
                "chunking": True,
                "metadata": True,
                "language": True,
            },
        )
        # Only where they are used: what was made before there were any stays as it is.
        used = {"filters": self.filters.on, "deduplicate": self.deduplicate.on}
        deciding |= self.model_dump(mode="json", include={name for name, on in used.items() if on})
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()
