"""What a user may set of a server: one model, read by `tandem serve`, by `serve deploy` and by a RayService alike.

Guaranteed: unknown keys, wrong types and impossible pairs fail before anything is deployed. Not guaranteed: that the
indices and models exist; `tandem serve` looks before it deploys, the deployments when they start.
"""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ray_jobs.answer.engine_config import EngineConfig
from ray_jobs.index.layout import check_name
from ray_jobs.models.setting import EmbedderSetting, RerankerSetting
from ray_jobs.storage import DEFAULT_STORE
from serve.api.config import ApiConfig
from serve.scaling import DeploymentsConfig, Name, Profile, Scaling

_ROOM = 1.25


class ServeConfig(BaseModel):
    """One application: indices, models, limits and how far each deployment scales."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    application: str = Field("tandem", min_length=1, description="name of the Ray Serve application")
    store: str = Field(DEFAULT_STORE, description="path or URI of the store")
    index: tuple[str, ...] = Field(
        min_length=1, description="an index to serve; may be repeated, the first is the default"
    )
    partitions: int | None = Field(None, ge=1, description="partitions of every index; None: by the profile")
    profile: Literal["auto"] | Profile = Field("auto", description="laptop or cluster; auto: by the cluster's size")
    embedder: EmbedderSetting | None = Field(None, description="how to embed queries; None: as each index was")
    reranker: RerankerSetting | None = Field(None, description="the cross-encoder; None: there is none")
    generator: EngineConfig = Field(EngineConfig(), description="what writes the answers")
    api: ApiConfig = Field(ApiConfig(), description="keys, limits and defaults of the API")
    partition_s: float = Field(2.0, gt=0, description="seconds that one partition has for one step of a search")
    poll_s: float = Field(1.0, gt=0, description="seconds between two looks at the store for a new snapshot")
    batch: int = Field(32, ge=1, description="queries that are embedded and searched together at most")
    deployments: DeploymentsConfig = Field(DeploymentsConfig(), description="what differs from the profile")

    def scaling_of(self, name: Name) -> Scaling:
        """What differs from the profile; a gateway takes more than it lets in, so that it can refuse the rest."""
        given: Scaling = getattr(self.deployments, name)
        if name != "gateway" or given.max_ongoing_requests is not None:
            return given
        return given.model_copy(update={"max_ongoing_requests": math.ceil(_ROOM * self.api.requests)})

    @model_validator(mode="after")
    def _a_gateway_can_refuse(self) -> Self:
        ongoing = self.deployments.gateway.max_ongoing_requests
        if ongoing is not None and ongoing <= self.api.requests:
            raise ValueError(
                f"deployments.gateway.max_ongoing_requests={ongoing}: expected more than api.requests="
                f"{self.api.requests}; the difference is what can be refused instead of queued"
            )
        return self

    @field_validator("index", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("index")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            check_name(name)
        if len(set(value)) < len(value):
            raise ValueError(f"{list(value)}: one is named twice; expected each once")
        return value
