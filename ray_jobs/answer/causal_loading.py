"""Loading a causal language model and its tokeniser, from local files and without code of others.

A model may be a LoRA adapter: it is put over the base that it names, with the tokeniser that lies beside it.

Guaranteed: safetensors only, `trust_remote_code` never, float32 or bfloat16 as configured or as the machine computes
best; a folder whose weights are not those of a causal language model is refused, and so is a base of another revision
than an adapter was trained on. Not guaranteed: that the model fits into memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray_jobs.answer.engine_config import EngineConfig
from ray_jobs.answer.lora import over
from ray_jobs.errors import ModelError, UsageError
from ray_jobs.models.adapter import AdaptedModel, resolve_adapted
from ray_jobs.models.card import check_base
from ray_jobs.models.openvino_runtime import cpu_has_bfloat16
from ray_jobs.models.sentence_model import quiet_transformers
from ray_jobs.models.torch_engine import cuda_available, cuda_has_bfloat16
from ray_jobs.storage import Storage


def load_causal(config: EngineConfig, store: Storage | None) -> tuple[Any, Any]:
    """Model and tokeniser, ready for inference.

    Raises NotFoundError when no place has the model or the base of an adapter, ModelError when it cannot be loaded,
    UsageError for a device or precision that this machine lacks, and for adapters over an adapter.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device, precision = _device(config), _precision(config)
    _check_attention(config)
    wanted = resolve_adapted(str(config.model), store)
    if wanted.adapter is not None and config.adapters:
        raise UsageError(
            f"model={config.model} with adapters={', '.join(config.adapters)}: the model is an adapter itself; set "
            f"model={wanted.base.name} and name {config.model} among the adapters"
        )
    check_base(wanted)
    found = wanted.base
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(_tokenizer_of(wanted), **local)
            model, info = AutoModelForCausalLM.from_pretrained(
                found.path,
                dtype=getattr(torch, precision),
                attn_implementation=config.attention,
                use_safetensors=True,
                output_loading_info=True,
                **local,
            )
            model = model.to(device).eval()
    except Exception as error:
        # Every architecture fails in its own way here: the reason is kept, the user gets one line.
        raise ModelError(
            f"model {found.name!r} in {str(found.path)!r} cannot be loaded as a causal language model "
            f"({type(error).__name__}: {(str(error).splitlines() or [''])[0]}): expected a folder with config.json, a "
            "tokeniser and safetensors"
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"model {found.name!r} in {str(found.path)!r} lacks {len(missing)} weights of a causal language model, "
            f"such as {missing[0]}: choose a model that generates text"
        )
    # `generate` fills what a request leaves open from the model's own configuration: temperatures, penalties.
    model.generation_config = _settings(model, tokenizer)
    model.requires_grad_(False)
    return (model if wanted.adapter is None else over(model, wanted.name, wanted.adapter.path)), tokenizer


def _tokenizer_of(model: AdaptedModel) -> Path:
    """The folder of the tokeniser: an adapter's own has the chat template that it was trained with."""
    return model.folder if (model.folder / "tokenizer_config.json").is_file() else model.base.path


def _settings(model: Any, tokenizer: Any) -> Any:
    """A GenerationConfig of the model's special tokens alone."""
    from transformers import GenerationConfig

    own = model.generation_config
    ends = own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id
    padding = next((i for i in (own.pad_token_id, tokenizer.pad_token_id) if i is not None), None)
    return GenerationConfig(
        bos_token_id=own.bos_token_id if own.bos_token_id is not None else tokenizer.bos_token_id,
        eos_token_id=ends,
        pad_token_id=padding if padding is not None else (ends[0] if isinstance(ends, list) else ends) or 0,
        do_sample=False,
    )


def end_tokens(model: Any) -> frozenset[int]:
    """The tokens that end an answer."""
    ends = model.generation_config.eos_token_id
    return frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])


def _check_attention(config: EngineConfig) -> None:
    from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

    installed = {"flash_attention_2": is_flash_attn_2_available, "flash_attention_3": is_flash_attn_3_available}
    # Transformers would else look for compiled kernels on the hub: code of others.
    if config.attention in installed and not installed[config.attention]():
        raise UsageError(
            f"attention={config.attention}: its package is not installed here, or there is no GPU for it; install it, "
            "or leave attention out"
        )


def _device(config: EngineConfig) -> str:
    if config.device == "cuda" and not cuda_available():
        raise UsageError("device=cuda: torch finds no GPU on this machine; use device=cpu or install a CUDA build")
    return ("cuda" if cuda_available() else "cpu") if config.device == "auto" else config.device


def _precision(config: EngineConfig) -> str:
    if config.precision == "float32":
        return config.precision
    has_bfloat16 = cuda_has_bfloat16() if _device(config) == "cuda" else cpu_has_bfloat16()
    if config.precision == "bfloat16" and not has_bfloat16:
        raise UsageError("precision=bfloat16: this machine does not compute in it; use precision=float32")
    return "bfloat16" if has_bfloat16 else "float32"
