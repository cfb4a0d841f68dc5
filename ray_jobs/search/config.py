"""What a user may set of a search job; checked whole before any work."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ray_jobs.index.search import SearchConfig
from ray_jobs.models.setting import EmbedderSetting
from ray_jobs.storage import DEFAULT_STORE


class SearchJobConfig(BaseModel):
    """One search job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: str
    store: str = DEFAULT_STORE
    snapshot: int | None = Field(None, ge=1)
    queries: Path = Field(description='JSON Lines of {"id", "text"}, or Parquet with these columns')
    output: Path = Field(description="Parquet by suffix, else JSON Lines")
    search: SearchConfig = SearchConfig()
    embedder: EmbedderSetting | None = None
    block_queries: int = Field(256, ge=1, description="queries that are searched together")
    partition_bytes: int = Field(8 << 30, ge=1, description="bytes of shards that one task opens")
    cpus: float | None = Field(None, gt=0, description="CPUs of one task; None: fitted to the cluster")
