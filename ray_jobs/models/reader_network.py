"""Reading a question-answering model of Hugging Face, with or without an adapter.

Guaranteed: the network has a trained head that tells starts from ends; an adapter is merged into its base, which need
not have such a head where the adapter brings it. No code from the model's folder runs. Refused with ModelError: models
whose head was never trained (an embedder, a reranker: their spans would be random), adapters that do not fit their
base, models without a fast tokeniser or a padding token.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_jobs.errors import ModelError
from ray_jobs.models.adapter import AdaptedModel
from ray_jobs.models.reader_card import check_base
from ray_jobs.models.resolve import ResolvedModel
from ray_jobs.models.sentence_model import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_HEAD = "ForQuestionAnswering"
_OUTPUTS = 2  # starts and ends
_LONGEST_REASON = 300
_PEFT_PREFIX = "base_model.model."


def load_reader_network(model: AdaptedModel, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The network in float32 on `device`, ready for inference, and its tokeniser; from local files only."""
    if model.adapter is None:
        _check_head(model.base)
    check_base(model)
    try:
        with _quiet():
            network = _plain(model.base) if model.adapter is None else _adapted(model.base, model.adapter)
            tokenizer = _tokenizer(model)
    except ModelError:
        raise
    except Exception as error:
        # Every architecture fails in its own way here: the reason is kept, the user gets one line.
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        raise ModelError(
            f"model {model.name!r} cannot be loaded as a reader ({type(error).__name__}: {reason}): check the folder "
            "or choose another model"
        ) from error
    return network.float().to(device).eval(), tokenizer


def _plain(model: ResolvedModel) -> PreTrainedModel:
    network, untrained = _load(model)
    if untrained:
        raise ModelError(
            f"model {model.name!r} lacks {min(untrained)!r}: its spans would be random; save it again whole"
        )
    if network.config.num_labels != _OUTPUTS:
        raise ModelError(
            f"model {model.name!r} has {network.config.num_labels} outputs, expected {_OUTPUTS}, starts and ends: "
            "choose a reader"
        )
    return network


def _adapted(base: ResolvedModel, adapter: ResolvedModel) -> PreTrainedModel:
    try:
        from peft import PeftModel, get_peft_model_state_dict, load_peft_weights
    except ModuleNotFoundError as error:
        raise ModelError(f"model {adapter.name!r} is an adapter and needs PEFT: pip install peft") from error

    network, untrained = _load(base, num_labels=_OUTPUTS)
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
            f"adapter {adapter.name!r} and its base {base.name!r} both lack {min(uncovered)!r}: spans would be "
            "random; train the adapter with its head among modules_to_save"
        )
    return adapted.merge_and_unload()


def _load(model: ResolvedModel, **settings: Any) -> tuple[PreTrainedModel, set[str]]:
    """The network, and the weights that the folder does not have, so that they are random."""
    import torch
    from transformers import AutoModelForQuestionAnswering

    network, loading = AutoModelForQuestionAnswering.from_pretrained(
        str(model.path), local_files_only=True, dtype=torch.float32, output_loading_info=True, **settings
    )
    return network, set(loading["missing_keys"])


def _tokenizer(model: AdaptedModel) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer

    adapter = model.adapter
    own = adapter if adapter is not None and (adapter.path / "tokenizer_config.json").is_file() else model.base
    tokenizer: Any = AutoTokenizer.from_pretrained(str(own.path), local_files_only=True)
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ModelError(f"model {model.name!r} has no fast tokeniser, whose offsets a reader needs: choose another")
    if tokenizer.pad_token_id is None:
        raise ModelError(f"model {model.name!r} has no padding token: set one in its tokeniser, or choose another")
    return tokenizer


def _check_head(model: ResolvedModel) -> None:
    architectures = _architectures(model.path)
    if not any(name.endswith(_HEAD) for name in architectures):
        kind = ", ".join(architectures) or "unknown"
        raise ModelError(
            f"model {model.name!r} is no reader (architecture {kind}): expected a Hugging Face model ...{_HEAD}, or an "
            "adapter that brings its head"
        )


def _architectures(folder: Path) -> list[str]:
    file = folder / "config.json"
    if not file.is_file():
        return []
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{str(file)!r} is not JSON ({error}): download or save the model again") from error
    return list(content.get("architectures") or []) if isinstance(content, dict) else []


@contextmanager
def _quiet() -> Iterator[None]:
    """No reports on weights and deprecations of others' while a model is loaded."""
    with quiet_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
