"""Which reranker, on which engine: what a user may set, and the choice that is made for this machine.

Guaranteed: what the user set is kept or refused, never changed. With a GPU: torch in bfloat16. On a CPU: torch in
bfloat16 where the CPU computes in it, else in float32.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ray_jobs.models.embedder_config import Device, EmbedderConfig, Precision
from ray_jobs.models.engine_choice import choose_engine

RerankerEngineName = Literal["torch", "fake"]


class RerankerOptions(BaseModel):
    """How a reranker runs, whichever model it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["auto"] | RerankerEngineName = Field("auto", description="what runs the model")
    precision: Literal["auto"] | Precision = Field("auto", description="arithmetic of the forward pass")
    device: Literal["auto"] | Device = Field("auto", description="where the model runs")
    max_tokens: int | None = Field(
        None, ge=8, description="cut a query with its text at so many tokens; None: the model's own maximum"
    )
    batch_tokens: int | None = Field(None, ge=8, description="padded tokens of one batch; None: what suits the device")
    threads: int | None = Field(None, ge=1, description="CPU threads of the forward pass; None: all that are allowed")

    @model_validator(mode="after")
    def _pairs_that_cannot_be(self) -> Self:
        if self.engine == "fake" and (self.precision == "bfloat16" or self.device == "cuda"):
            raise ValueError(
                f"engine=fake with precision={self.precision}, device={self.device}: the fake engine computes in "
                "float32 on the CPU only"
            )
        return self


class RerankerConfig(RerankerOptions):
    """One reranker. `auto` stands for what `choose_reranker_engine` finds best on this machine."""

    model: str = Field(min_length=1, description="name or path of a cross-encoder, or of an adapter of one")


def choose_reranker_engine(config: RerankerConfig) -> RerankerConfig:
    """The same configuration with `auto` replaced by a concrete engine, precision and device.

    Raises UsageError for a device or precision that this machine lacks.
    """
    if config.engine == "fake":
        return config.model_copy(update={"precision": "float32", "device": "cpu"})
    # What suits an embedder in torch suits a cross-encoder: both are one transformer.
    chosen = choose_engine(
        EmbedderConfig(model=config.model, engine="torch", precision=config.precision, device=config.device)
    )
    return config.model_copy(update={"engine": chosen.engine, "precision": chosen.precision, "device": chosen.device})
