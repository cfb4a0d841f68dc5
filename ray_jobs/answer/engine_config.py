"""What writes the answers, and how it is loaded: one model a user may set, one table of engines.

Guaranteed: unknown keys, wrong types and pairs that cannot be fail before anything is loaded; a key of an endpoint is
never part of a configuration, only the name of the environment variable that holds it. Not guaranteed: that the model
exists; `load_engine` says so when it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ray_jobs.answer.engine import Engine
from ray_jobs.answer.extractive import ReaderConfig
from ray_jobs.answer.extractive_engine import EmbedderLoader
from ray_jobs.answer.reader_setting import ReaderSetting
from ray_jobs.models.embedder_config import Device, EmbedderConfig, Precision
from ray_jobs.models.reader_config import ReaderConfig as SpanReaderConfig
from ray_jobs.models.reader_config import ReaderOptions
from ray_jobs.models.setting import EmbedderSetting
from ray_jobs.storage import Storage

Attention = Literal["sdpa", "flash_attention_2", "flash_attention_3"]
EngineName = Literal["extractive", "transformers", "openai"]


class EngineConfig(BaseModel):
    """An engine: a reader that quotes, a Hugging Face causal language model, or an OpenAI-compatible endpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: EngineName = Field("extractive", description="what writes the answers")
    name: str | None = Field(None, min_length=1, description="name in requests; None: the model's own")
    model: str | None = Field(
        None,
        min_length=1,
        description="name or path of the language model, or of a LoRA adapter of one; or upstream's name",
    )
    max_new_tokens: int = Field(512, ge=1, description="tokens of one answer at most")
    context_tokens: int | None = Field(None, ge=64, description="tokens of prompt and answer; None: the model's own")
    min_support: float = Field(0.5, ge=0, le=1, description="share of an answer's words that its sources must hold")

    reader: ReaderSetting = Field(
        ReaderConfig(),
        description="name or path of a model that gives exact spans; or how much the extractive engine quotes",
    )
    reader_options: ReaderOptions = Field(ReaderOptions(), description="how the reader of that name runs")
    embedder: EmbedderSetting = Field(EmbedderConfig(), description="what judges sentences, for the extractive engine")

    adapters: Mapping[str, str] = Field(
        {}, description="LoRA adapters: name in requests -> name or path, or upstream's name"
    )
    device: Literal["auto"] | Device = Field("auto", description="where the language model runs")
    precision: Literal["auto"] | Precision = Field("auto", description="arithmetic of the language model")
    attention: Attention | None = Field(None, description="kernels of attention; None: as transformers chooses")
    concurrent: int = Field(4, ge=1, description="answers written side by side, without continuous batching")
    chat_template: Mapping[str, str | bool] = Field({}, description="further variables of the model's chat template")
    continuous: Literal["auto", "on", "off"] = Field("auto", description="continuous batching; auto: where it runs")
    num_blocks: int | None = Field(None, ge=1, description="blocks of the batch's cache; None: by the GPU's memory")
    max_batch_tokens: int | None = Field(None, ge=16, description="tokens of one batch; None: by the GPU's memory")

    base_url: str | None = Field(None, min_length=1, description="address of an OpenAI-compatible endpoint")
    api_key_env: str | None = Field(None, min_length=1, description="environment variable that holds its key")
    connect_s: float = Field(5.0, gt=0, description="seconds to connect to the endpoint")
    silence_s: float = Field(60.0, gt=0, description="seconds that the endpoint may be silent")

    @property
    def public_name(self) -> str:
        """The name of the engine's base model in requests."""
        read_by = self.reader if isinstance(self.reader, str) else None
        named = self.model or read_by
        return self.name or (PurePath(named).name if named else self.engine)

    @model_validator(mode="after")
    def _pairs_that_cannot_be(self) -> Self:
        if self.engine != "extractive" and self.model is None:
            raise ValueError(f"engine={self.engine} without model: name the language model")
        if self.engine == "openai" and self.base_url is None:
            raise ValueError("engine=openai without base_url: give the endpoint's address, such as http://host:8000/v1")
        if self.engine != "openai" and (self.base_url or self.api_key_env):
            raise ValueError(f"engine={self.engine} with base_url or api_key_env: only engine=openai has an endpoint")
        if self.engine == "extractive" and self.adapters:
            raise ValueError("engine=extractive with adapters: only language models take LoRA adapters")
        if self.engine != "extractive" and isinstance(self.reader, str):
            raise ValueError(f"engine={self.engine} with reader={self.reader}: only engine=extractive reads")
        if wrong := [name for name in (self.public_name, *self.adapters) if ":" in name or not name.strip()]:
            raise ValueError(f"name {wrong[0]!r}: ':' stands between a model and its adapter; choose another name")
        if self.continuous == "off" and (self.num_blocks or self.max_batch_tokens):
            raise ValueError("continuous=off with num_blocks or max_batch_tokens: they are for continuous batching")
        return self


def load_engine(config: EngineConfig, embedder: EmbedderLoader | None = None, store: Storage | None = None) -> Engine:
    """The engine that `config` names, ready to answer; loading a model takes seconds to minutes.

    `embedder` gives one that is loaded already, for the extractive engine; `store` is the one whose models
    count, if any. Raises NotFoundError for a model that no place has, ModelError for one that cannot be loaded,
    UsageError for a device, precision or environment variable that is not there.
    """
    return ENGINES[config.engine](config, embedder, store)


def _extractive(config: EngineConfig, embedder: EmbedderLoader | None, store: Storage | None) -> Engine:
    if isinstance(config.reader, str):
        return _reading(config, config.reader, store)
    from ray_jobs.answer.extractive_engine import ExtractiveEngine
    from ray_jobs.models.embedder import Embedder

    loaded = embedder() if embedder is not None else Embedder.load(config.embedder, store)
    return ExtractiveEngine(config.public_name, loaded, config.reader)


def _reading(config: EngineConfig, reader: str, store: Storage | None) -> Engine:
    from ray_jobs.answer.reading_engine import ReadingEngine
    from ray_jobs.models.reader import Reader

    options = SpanReaderConfig(model=reader, **config.reader_options.model_dump())
    return ReadingEngine(config.public_name, Reader.load(options, store))


def _transformers(config: EngineConfig, embedder: EmbedderLoader | None, store: Storage | None) -> Engine:
    from ray_jobs.answer.causal import CausalModel
    from ray_jobs.answer.written import WritingEngine

    return WritingEngine(CausalModel.load(config, store), config.min_support)


def _openai(config: EngineConfig, embedder: EmbedderLoader | None, store: Storage | None) -> Engine:
    from ray_jobs.answer.upstream import UpstreamModel
    from ray_jobs.answer.written import WritingEngine

    return WritingEngine(UpstreamModel.connect(config), config.min_support)


# Another engine is a function and a line.
ENGINES: Mapping[EngineName, Callable[[EngineConfig, EmbedderLoader | None, Storage | None], Engine]] = {
    "extractive": _extractive,
    "transformers": _transformers,
    "openai": _openai,
}
