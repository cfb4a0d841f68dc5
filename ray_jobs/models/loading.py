"""From a concrete configuration to a running engine with its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ray_jobs.errors import ModelError
from ray_jobs.models.embedder_config import EmbedderConfig, EngineName, Precision
from ray_jobs.models.engine import EncoderSpec, Engine, TokenIds
from ray_jobs.models.fake_engine import FAKE_NAME, FAKE_REVISION, FAKE_SPEC, FakeEngine, FakeTokenizer


@dataclass(frozen=True)
class LoadedEncoder:
    """A model ready to run: who it is, its tokens, its engine and the batches that suit the engine."""

    name: str
    revision: str
    spec: EncoderSpec
    tokens: TokenIds
    engine: Engine
    engine_name: EngineName
    precision: Precision
    batch_tokens: int
    pad_multiple: int


def load_encoder(config: EmbedderConfig, store_models: Path | None = None) -> LoadedEncoder:
    """Start the engine that `config` names; its choices must be concrete."""
    if config.engine == "fake":
        return LoadedEncoder(
            FAKE_NAME, FAKE_REVISION, FAKE_SPEC, FakeTokenizer(), FakeEngine(), "fake", "float32", 4096, 1
        )
    raise ModelError(f"engine={config.engine!r} is not one of torch, openvino, fake")
