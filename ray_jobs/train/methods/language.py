"""What the methods over causal language models share: which base they take, tokeniser, lengths, quantised base."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_jobs.errors import ModelError, UsageError
from ray_jobs.models.sentence_model import quiet_transformers
from ray_jobs.train.methods import Task
from ray_jobs.train.methods.arguments import adapter, row_length

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_base(task: Task) -> None:
    """Raise ModelError for a base whose architecture is no causal language model.

    TRL makes whatever network the base names; one that fills gaps would learn each token from that token itself.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    config = AutoConfig.from_pretrained(task.base, local_files_only=True, trust_remote_code=False)
    found = (config.architectures or ["none"])[0]
    if found not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        raise ModelError(
            f"base={task.config.base} has the architecture {found}, and method={task.config.method} trains causal "
            "language models; choose a base whose config.json names one, such as LlamaForCausalLM"
        )


def tokenizer_of(task: Task) -> PreTrainedTokenizerBase:
    """The base's tokeniser, with a token to pad with; raises ModelError where it has no end of text."""
    tokenizer = tokenizer_in(task.base)
    if tokenizer.eos_token_id is None:
        raise ModelError(f"base={task.config.base}: its tokeniser has no end-of-text token; set one, or choose another")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def tokenizer_in(folder: Path) -> PreTrainedTokenizerBase:
    """The tokeniser in a folder, as it is."""
    from transformers import AutoTokenizer

    with quiet_transformers():
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def longest_row(task: Task) -> int:
    """Tokens of a row at most; raises UsageError where the user asks for more than the base takes."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(task.base, local_files_only=True, trust_remote_code=False)
    return row_length(task.config, getattr(config.get_text_config(), "max_position_embeddings", None))


def check_kept(rows: int, name: str, length: int, task: Task) -> None:
    """Raise UsageError where no row of a split keeps anything to learn."""
    if not rows:
        raise UsageError(
            f"data={task.config.data}: no row of {name} keeps anything to learn within {length} tokens; raise "
            "sequence.max_length or shorten the prompts"
        )


def over_the_base(task: Task) -> dict[str, Any]:
    """Arguments of TRL's trainers for adapters and a quantised base."""
    lora = task.config.lora
    if lora is None:
        return {}
    found: dict[str, Any] = {"peft_config": adapter(lora, "CAUSAL_LM")}
    if lora.quantise == "4bit":
        found["quantization_config"] = _four_bits(task)
    return found


def _four_bits(task: Task) -> Any:
    from importlib.util import find_spec

    import torch
    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None or task.place.device == "cpu":
        raise UsageError(
            "lora.quantise=4bit: needs a GPU and the package bitsandbytes (pip install bitsandbytes), or set "
            "lora.quantise=none"
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, task.place.precision),
    )
