"""Reading a cross-encoder of sentence-transformers or Hugging Face, with or without an adapter.

Guaranteed: activation, prompt, maximum length and modules are the model's own; an adapter is merged into its base, in
float32 whatever dtype that is stored in. No code from the model's folder runs. Refused with ModelError: models with
several outputs, models whose head was never trained (an embedder, a plain language model: sentence-transformers would
give them scores without meaning), adapters that do not fit their base, and models without a fast tokeniser.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ray_jobs.errors import ModelError
from ray_jobs.models.adapted_network import explained, merged
from ray_jobs.models.adapter import AdaptedModel
from ray_jobs.models.card import architectures, check_base, read_object
from ray_jobs.models.resolve import ResolvedModel
from ray_jobs.models.token_limit import trained_length

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

_SETTINGS = "config_sentence_transformers.json"
_HEAD = "ForSequenceClassification"


def load_cross_encoder(model: AdaptedModel, device: str) -> CrossEncoder:
    """The model in float32 on `device`, ready for inference, from local files only."""
    if model.adapter is None:
        _check_head(model.base)
    check_base(model)
    with _quiet(), explained(model.name, "cross-encoder"):
        loaded = _load(model.base, device) if model.adapter is None else _adapted(model, model.adapter, device)
    _check(loaded, model.name)
    return loaded.float().eval()


def prompt_of(model: CrossEncoder) -> str:
    """What goes before every query."""
    prompt: str | None = model.prompts.get(model.default_prompt_name or "", "")
    return prompt or ""


def _load(model: ResolvedModel, device: str, **settings: Any) -> CrossEncoder:
    import torch
    from sentence_transformers import CrossEncoder

    return CrossEncoder(
        str(model.path), device=device, local_files_only=True, model_kwargs={"dtype": torch.float32}, **settings
    )


def _adapted(model: AdaptedModel, adapter: ResolvedModel, device: str) -> CrossEncoder:
    base = model.base
    loaded = _load(base, device, **_settings(model, adapter))
    network = loaded[0].model
    loaded[0].model = merged(network, _missing(base, network), base, adapter, "scores")
    return loaded


def _missing(base: ResolvedModel, network: Any) -> set[str]:
    """Weights that the base does not have, so that they are random in `network`."""
    if type(network).__name__ in architectures(base.path):
        return set()
    _, loading = type(network).from_pretrained(str(base.path), config=network.config, output_loading_info=True)
    return set(loading["missing_keys"])


def _settings(model: AdaptedModel, adapter: ResolvedModel) -> dict[str, Any]:
    """What the adapter's folder says of prompts, activation and length; what it leaves open is the base's."""
    saved = read_object(adapter.path / _SETTINGS)
    found = {key: saved[key] for key in ("prompts", "default_prompt_name") if saved.get(key)}
    activation = _activation(saved.get("activation_fn"))
    if activation is not None:
        found["activation_fn"] = activation
    if (longest := trained_length(model)) is not None:
        found["max_length"] = longest
    return found


def _activation(path: object) -> Any:
    """An instance of one of torch's own activations; None for any other."""
    if not isinstance(path, str) or not path.startswith("torch.nn."):
        return None
    from torch import nn

    module, _, name = path.rpartition(".")
    found = getattr(import_module(module), name)
    return found() if isinstance(found, type) and issubclass(found, nn.Module) else None


def _check_head(model: ResolvedModel) -> None:
    """Refuse what sentence-transformers would give a random head."""
    if (model.path / "modules.json").is_file():
        trained = read_object(model.path / _SETTINGS).get("model_type") == "CrossEncoder"
    else:
        trained = any(name.endswith(_HEAD) for name in architectures(model.path))
    if not trained:
        kind = ", ".join(architectures(model.path)) or "unknown"
        raise ModelError(
            f"model {model.name!r} is no reranker (architecture {kind}): expected a CrossEncoder of "
            f"sentence-transformers, or a Hugging Face model ...{_HEAD} with one output"
        )


def _check(loaded: CrossEncoder, name: str) -> None:
    if loaded.num_labels != 1:
        raise ModelError(f"model {name!r} has {loaded.num_labels} outputs, expected one: choose a reranker")
    first = loaded[0]
    tokenizer: Any = getattr(first, "tokenizer", None)
    if getattr(tokenizer, "backend_tokenizer", None) is None or not hasattr(first, "modality_config"):
        raise ModelError(
            f"model {name!r} starts with {type(first).__name__}, expected a text transformer with a fast tokeniser: "
            "choose another model"
        )
    if tokenizer.pad_token_id is None:
        raise ModelError(f"model {name!r} has no padding token: set one in its tokeniser, or choose another model")


@contextmanager
def _quiet() -> Iterator[None]:
    """No reports on conversions while a model is loaded."""
    logger = logging.getLogger("sentence_transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
