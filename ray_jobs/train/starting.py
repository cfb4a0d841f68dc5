"""An adapter that begins as another one: what a model has learned of one task is where it starts to learn the next.

Guaranteed: the other adapter belongs to the very base and has the same rank and scale, so that the network begins as
that adapter's; a head that both have is taken over too, one that only the new one has is new. Refused with ModelError:
an adapter that changes layers which the new one leaves alone.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ray_jobs.errors import ModelError, UsageError
from ray_jobs.models.adapter import ADAPTER_CONFIG, resolve_adapted
from ray_jobs.models.resolve import ResolvedModel
from ray_jobs.storage import Storage
from ray_jobs.train.config import LoraConfig, TrainConfig

if TYPE_CHECKING:
    import torch

_MATRIX = "lora_"


def find_start(config: TrainConfig, base_revision: str, storage: Storage) -> ResolvedModel | None:
    """The adapter to start from, if there is to be one.

    Raises NotFoundError where there is none of that name, UsageError for one of another base, rank or scale.
    """
    lora = config.lora
    if lora is None or lora.start is None:
        return None
    found = resolve_adapted(lora.start, storage)
    if found.adapter is None:
        raise UsageError(f"lora.start={lora.start}: a whole model, expected an adapter; name it as base instead")
    if found.base.revision != base_revision:
        raise UsageError(f"lora.start={lora.start}: an adapter of {found.base.name}, not of base={config.base}")
    has = json.loads((found.adapter.path / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    for key, name, wanted in _shape(lora):
        if has.get(name) != wanted:
            raise UsageError(
                f"lora.start={lora.start}: was trained with lora.{key}={has.get(name)}, not {wanted}; set it to that"
            )
    return found.adapter


def begin_as(network: torch.nn.Module, start: ResolvedModel) -> None:
    """Give the adapter inside `network` the weights of `start`; raises ModelError where they do not fit."""
    from peft import PeftModel, get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict

    adapted = next(module for module in network.modules() if isinstance(module, PeftModel))
    own, given = get_peft_model_state_dict(adapted), load_peft_weights(str(start.path), device="cpu")
    fitting = {key: value for key, value in given.items() if key in own and own[key].shape == value.shape}
    foreign = [key for key in given if _MATRIX in key and key not in fitting]
    if foreign:
        raise ModelError(
            f"lora.start={start.name}: {len(foreign)} of its matrices, such as {min(foreign)}, have no place here; set "
            "lora.targets to those that it was trained with"
        )
    set_peft_model_state_dict(adapted, {**own, **{key: value.to(own[key].dtype) for key, value in fitting.items()}})


def _shape(lora: LoraConfig) -> list[tuple[str, str, object]]:
    """Key of the configuration, key of PEFT's, and the value that both must have."""
    return [
        ("rank", "r", lora.rank),
        ("alpha", "lora_alpha", lora.alpha),
        ("dora", "use_dora", lora.dora),
        ("rslora", "use_rslora", lora.rslora),
    ]
