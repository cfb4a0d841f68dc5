"""Rows of earlier learning, mixed into the training rows so that it is not forgotten."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ReplayConfig(BaseModel):
    """Which rows are replayed, and how many of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = Field(min_length=1, description="a prepared data set of the same kind, or its folder: its train split")
    share: float = Field(0.1, gt=0, lt=1, description="of the rows of an epoch")
