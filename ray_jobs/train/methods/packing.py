"""Which networks keep packed rows apart.

Rows of one packed sequence are told apart by their positions alone, which begin anew at each of them. Guaranteed: a
network is refused that would not be told its positions, makes its masks without them, or carries state from token to
token. Not guaranteed: networks of code that transformers does not bring.
"""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING

from ray_jobs.errors import ModelError, UsageError
from ray_jobs.train.methods import Task

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_CARRYING = {"linear_attention", "mamba", "conv", "recurrent", "hybrid", "hybrid_sliding"}
"""Kinds of layers that look back by other means than a mask."""


def check_packing(task: Task) -> bool:
    """Whether the base's attention is told the lengths of rows; else it compares by masks.

    Raises UsageError for a base whose rows would see each other when they are packed.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(task.base, local_files_only=True, trust_remote_code=False)
    network = AutoModelForCausalLM._model_mapping.get(type(config), None)
    if network is None:
        raise ModelError(f"base={task.config.base}: transformers has no language model for {config.model_type}")
    reason = why_not(network, config)
    if reason is not None:
        raise UsageError(
            f"sequence.packing=true with base={task.config.base}: {network.__name__} {reason}, so that packed rows "
            "would see each other; set sequence.packing=false"
        )
    return "flash" in (config._attn_implementation or "")


def why_not(network: type[PreTrainedModel], config: PretrainedConfig) -> str | None:
    """Why a network cannot keep packed rows apart; None where it can."""
    # Some take anything else that they are given, and drop it.
    if "position_ids" not in inspect.signature(network.forward).parameters:
        return "takes no position_ids"
    layers = getattr(config.get_text_config(), "layer_types", None) or ()
    if getattr(network, "_is_stateful", False) or _CARRYING & set(layers):
        return "carries state from token to token"
    if not any("causal_mask" in name or "create_masks" in name for name in vars(sys.modules[network.__module__])):
        return "makes its masks without position_ids"
    return None
