"""From a concrete configuration to a running engine with its tokeniser."""

from __future__ import annotations

from dataclasses import dataclass

from ray_jobs.errors import UsageError
from ray_jobs.models.embedder_config import EmbedderConfig, EngineName, Precision
from ray_jobs.models.engine import EncoderSpec, Engine, TokenIds
from ray_jobs.models.fake_engine import FAKE_NAME, FAKE_REVISION, FAKE_SPEC, FakeEngine, FakeTokenizer
from ray_jobs.models.resolve import ResolvedModel, resolve
from ray_jobs.storage import Storage


@dataclass(frozen=True, slots=True)
class Encoder:
    """A model ready to run: who it is, its tokens, its engine, and the batches that suit the engine."""

    name: str
    revision: str
    spec: EncoderSpec
    tokens: TokenIds
    engine: Engine
    engine_name: EngineName
    precision: Precision
    batch_tokens: int
    pad_multiple: int


def load_encoder(config: EmbedderConfig, store: Storage | None = None) -> Encoder:
    """Start the engine that `config` names. Raises UsageError unless engine, precision and device are concrete."""
    if config.engine == "fake":
        spec, tokens = FAKE_SPEC, FakeTokenizer()
        return Encoder(FAKE_NAME, FAKE_REVISION, spec, tokens, FakeEngine(), "fake", "float32", 4096, 1)
    if config.engine == "auto" or config.precision == "auto" or config.device == "auto":
        raise UsageError(
            f"engine={config.engine}, precision={config.precision}, device={config.device}: expected none to be auto "
            "when a model is loaded; call choose_engine first"
        )
    model = resolve(config.model, store)
    if config.engine == "openvino":
        return _openvino(model, config, config.precision)
    return _torch(model, config, config.precision)


def _openvino(model: ResolvedModel, config: EmbedderConfig, precision: Precision) -> Encoder:
    from ray_jobs.models.openvino_engine import OpenVinoEngine
    from ray_jobs.models.openvino_ir import GRAPH, TOKENIZER, converted, read_spec
    from ray_jobs.models.tokenizer import FastTokenizer

    folder = converted(model, config.cache)
    engine = OpenVinoEngine(folder / GRAPH, precision, config.threads)
    tokens = FastTokenizer((folder / TOKENIZER).read_text(encoding="utf-8"))
    return Encoder(model.name, model.revision, read_spec(folder), tokens, engine, "openvino", precision, 2048, 8)


def _torch(model: ResolvedModel, config: EmbedderConfig, precision: Precision) -> Encoder:
    import torch

    from ray_jobs.models.sentence_model import describe, load_sentence_model, tokenizer_json
    from ray_jobs.models.tokenizer import FastTokenizer
    from ray_jobs.models.torch_engine import TorchEngine

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    loaded = load_sentence_model(model, config.device)
    spec = describe(loaded, model.name)
    tokens = FastTokenizer(tokenizer_json(loaded))
    batch_tokens = 65536 if config.device == "cuda" else 4096
    engine = TorchEngine(loaded, spec, precision)
    return Encoder(model.name, model.revision, spec, tokens, engine, "torch", precision, batch_tokens, 8)
