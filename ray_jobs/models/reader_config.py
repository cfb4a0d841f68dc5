"""Which reader, and how it reads: what a user may set, and the choice that is made for this machine.

Guaranteed: what the user set is kept or refused, never changed. With a GPU: torch in bfloat16. On a CPU: torch in
bfloat16 where the CPU computes in it, else in float32.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ray_jobs.models.embedder_config import Device, EmbedderConfig, Precision
from ray_jobs.models.engine_choice import choose_engine


class ReaderOptions(BaseModel):
    """How a reader runs and when it answers, whichever model it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Literal["auto"] | Precision = Field("auto", description="arithmetic of the forward pass")
    device: Literal["auto"] | Device = Field("auto", description="where the model runs")
    threshold: float | None = Field(
        None, description="margin over 'no answer' from which a span is one; None: of the model's card, else 0"
    )
    max_tokens: int | None = Field(
        None, ge=8, description="tokens of a question with one window of a passage; None: the model's own maximum"
    )
    overlap: int = Field(128, ge=0, description="tokens that neighbouring windows share; at most half of a window")
    max_answer_tokens: int = Field(30, ge=1, description="tokens of one span at most")
    batch_tokens: int | None = Field(None, ge=8, description="padded tokens of one batch; None: what suits the device")
    threads: int | None = Field(None, ge=1, description="CPU threads of the forward pass; None: all that are allowed")


class ReaderConfig(ReaderOptions):
    """One reader. `auto` stands for what `choose_reader_engine` finds best on this machine."""

    model: str = Field(min_length=1, description="name or path of a question-answering model, or of an adapter of one")


def choose_reader_engine(config: ReaderConfig) -> ReaderConfig:
    """The same configuration with `auto` replaced by a concrete precision and device.

    Raises UsageError for a device or precision that this machine lacks.
    """
    # What suits an embedder in torch suits a reader: both are one transformer.
    chosen = choose_engine(
        EmbedderConfig(model=config.model, engine="torch", precision=config.precision, device=config.device)
    )
    return config.model_copy(update={"precision": chosen.precision, "device": chosen.device})
