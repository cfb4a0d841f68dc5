"""Which embedder, on which engine: what a user may set and what the driver fixes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

EngineName = Literal["torch", "openvino", "fake"]
Precision = Literal["float32", "bfloat16"]
Device = Literal["cpu", "cuda"]

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


class EmbedderConfig(BaseModel):
    """The embedder of an index or a query.

    `auto` stands for what `choose_engine` finds best on this machine. The driver of a job chooses once and hands the
    concrete configuration to its workers, so that one index is never made by two engines.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(DEFAULT_MODEL, min_length=1, description="name or path of a sentence-transformers model")
    engine: Literal["auto"] | EngineName = Field("auto", description="what runs the model")
    precision: Literal["auto"] | Precision = Field("auto", description="arithmetic of the forward pass")
    device: Literal["auto"] | Device = Field("auto", description="where the model runs")
    max_tokens: int | None = Field(None, ge=8, description="cut texts at so many tokens; None: the model's own maximum")
    batch_tokens: int | None = Field(None, ge=8, description="padded tokens of one batch; None: the engine's best")
    threads: int | None = Field(None, ge=1, description="CPU threads of the forward pass; None: all that are allowed")
    cache: Path | None = Field(None, description="folder of converted models; None: the user's cache folder")

    @model_validator(mode="after")
    def _pairs_that_cannot_be(self) -> Self:
        if self.engine == "openvino" and self.device == "cuda":
            raise ValueError("engine=openvino with device=cuda: OpenVINO runs on the CPU here; use engine=torch")
        if self.engine == "fake" and self.precision == "bfloat16":
            raise ValueError("engine=fake with precision=bfloat16: the fake engine computes in float32 only")
        return self
