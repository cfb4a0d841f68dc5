"""What a user may set of a compaction."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class CompactSettings(BaseModel):
    """When a shard is written anew."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_dead: float = Field(0.2, ge=0, lt=1, description="share of dead rows above which a shard is written anew")
    shard_bytes: int = Field(2 << 30, ge=1 << 20, description="bytes of text and vectors in one shard at most")
