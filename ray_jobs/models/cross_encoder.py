"""Reading a cross-encoder of sentence-transformers or Hugging Face, with or without an adapter.

Guaranteed: activation, prompt, maximum length and modules are the model's own; an adapter is merged into its base. No
code from the model's folder runs. Refused with ModelError: models with several outputs, models whose head was never
trained (an embedder, a plain language model: sentence-transformers would give them scores without meaning), adapters
that do not fit their base, and models without a fast tokeniser.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_jobs.errors import ModelError
from ray_jobs.models.adapter import AdaptedModel
from ray_jobs.models.resolve import ResolvedModel
from ray_jobs.models.sentence_model import quiet_transformers

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

_SETTINGS = "config_sentence_transformers.json"
_HEAD = "ForSequenceClassification"
_LONGEST_REASON = 300
_PEFT_PREFIX = "base_model.model."


def load_cross_encoder(model: AdaptedModel, device: str) -> CrossEncoder:
    """The model in float32 on `device`, ready for inference, from local files only."""
    if model.adapter is None:
        _check_head(model.base)
    try:
        with _quiet():
            loaded = _load(model.base, device) if model.adapter is None else _adapted(model.base, model.adapter, device)
    except ModelError:
        raise
    except Exception as error:
        # Every architecture fails in its own way here: the reason is kept, the user gets one line.
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        raise ModelError(
            f"model {model.name!r} cannot be loaded as a cross-encoder ({type(error).__name__}: {reason}): check the "
            "folder or choose another model"
        ) from error
    _check(loaded, model.name)
    return loaded.float().eval()


def prompt_of(model: CrossEncoder) -> str:
    """What goes before every query."""
    prompt: str | None = model.prompts.get(model.default_prompt_name or "", "")
    return prompt or ""


def _load(model: ResolvedModel, device: str, **settings: Any) -> CrossEncoder:
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(model.path), device=device, local_files_only=True, **settings)


def _adapted(base: ResolvedModel, adapter: ResolvedModel, device: str) -> CrossEncoder:
    try:
        from peft import PeftModel, get_peft_model_state_dict, load_peft_weights
    except ModuleNotFoundError as error:
        raise ModelError(f"model {adapter.name!r} is an adapter and needs PEFT: pip install peft") from error

    loaded = _load(base, device, **_settings(adapter))
    network = loaded[0].model
    untrained = _missing(base, network)
    stored = set(load_peft_weights(str(adapter.path), device="cpu"))
    adapted = PeftModel.from_pretrained(network, str(adapter.path))
    foreign = stored ^ set(get_peft_model_state_dict(adapted))
    if foreign:
        raise ModelError(
            f"adapter {adapter.name!r} does not fit its base {base.name!r}: {len(foreign)} weights such as "
            f"{min(foreign)!r} are only in one of them; name the base it was trained on in adapter_config.json"
        )
    uncovered = untrained - {name.removeprefix(_PEFT_PREFIX) for name in stored}
    if uncovered:
        raise ModelError(
            f"adapter {adapter.name!r} and its base {base.name!r} both lack {min(uncovered)!r}: scores would be "
            "random; train the adapter with its head among modules_to_save"
        )
    loaded[0].model = adapted.merge_and_unload()
    return loaded


def _missing(base: ResolvedModel, network: Any) -> set[str]:
    """Weights that the base does not have, so that they are random in `network`."""
    if type(network).__name__ in _architectures(base.path):
        return set()
    _, loading = type(network).from_pretrained(str(base.path), config=network.config, output_loading_info=True)
    return set(loading["missing_keys"])


def _settings(adapter: ResolvedModel) -> dict[str, Any]:
    """What the adapter's folder says of prompts, activation and length; what it leaves open is the base's."""
    from transformers import AutoTokenizer

    saved = _read(adapter.path / _SETTINGS)
    found = {key: saved[key] for key in ("prompts", "default_prompt_name") if saved.get(key)}
    activation = _activation(saved.get("activation_fn"))
    if activation is not None:
        found["activation_fn"] = activation
    if (adapter.path / "tokenizer_config.json").is_file():
        found["max_length"] = AutoTokenizer.from_pretrained(str(adapter.path)).model_max_length
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
        trained = _read(model.path / _SETTINGS).get("model_type") == "CrossEncoder"
    else:
        trained = any(name.endswith(_HEAD) for name in _architectures(model.path))
    if not trained:
        kind = ", ".join(_architectures(model.path)) or "unknown"
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


def _architectures(folder: Path) -> list[str]:
    return list(_read(folder / "config.json").get("architectures") or [])


def _read(file: Path) -> dict[str, Any]:
    """A JSON object; empty if there is no such file."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{str(file)!r} is not JSON ({error}): download or save the model again") from error
    return content if isinstance(content, dict) else {}


@contextmanager
def _quiet() -> Iterator[None]:
    """No reports on weights, conversions and deprecations of others' while a model is loaded."""
    logger = logging.getLogger("sentence_transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with quiet_transformers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
