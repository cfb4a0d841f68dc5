"""The choice of engine, precision and device for this machine, made once by the driver of a job."""

from __future__ import annotations

from pathlib import Path

from ray_jobs.models.embedder_config import EmbedderConfig


def choose_engine(config: EmbedderConfig, store_models: Path | None = None) -> EmbedderConfig:
    """The same configuration with `auto` replaced by a concrete engine, precision and device."""
    if config.engine == "fake":
        return config.model_copy(update={"precision": "float32", "device": "cpu"})
    return config
