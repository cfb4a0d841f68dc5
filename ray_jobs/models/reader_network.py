"""Reading a question-answering model of Hugging Face, with or without an adapter.

Guaranteed: the network has a trained head that tells starts from ends; an adapter is merged into its base, which need
not have such a head where the adapter brings it. No code from the model's folder runs. Refused with ModelError: models
whose head was never trained (an embedder, a reranker: their spans would be random), adapters that do not fit their
base, models without a fast tokeniser or a padding token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray_jobs.errors import ModelError
from ray_jobs.models.adapted_network import explained, merged
from ray_jobs.models.adapter import AdaptedModel
from ray_jobs.models.card import architectures, check_base
from ray_jobs.models.resolve import ResolvedModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_HEAD = "ForQuestionAnswering"
_OUTPUTS = 2  # starts and ends


def load_reader_network(model: AdaptedModel, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The network in float32 on `device`, ready for inference, and its tokeniser; from local files only."""
    if model.adapter is None:
        _check_head(model.base)
    check_base(model)
    with explained(model.name, "reader"):
        network = _plain(model.base) if model.adapter is None else _adapted(model.base, model.adapter)
        tokenizer = _tokenizer(model)
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
    network, untrained = _load(base, num_labels=_OUTPUTS)
    return merged(network, untrained, base, adapter, "spans")


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
    found = architectures(model.path)
    if not any(name.endswith(_HEAD) for name in found):
        kind = ", ".join(found) or "unknown"
        raise ModelError(
            f"model {model.name!r} is no reader (architecture {kind}): expected a Hugging Face model ...{_HEAD}, or an "
            "adapter that brings its head"
        )
