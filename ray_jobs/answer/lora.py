"""LoRA adapters beside each other over the weights of one base model.

Each adapter gets a tree of modules of its own whose tensors are the base's, with the adapter's small ones added: side
by side, requests for different adapters never see each other, the base stays as it was, and the base's weights are in
memory once.

Guaranteed: weights come from safetensors alone, and all of them belong to the model. Not covered, and refused with
ModelError: adapters of other kinds than LoRA, and those that add layers or tokens to the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray_jobs.answer.shared_weights import sharing_weights
from ray_jobs.errors import ModelError
from ray_jobs.models.resolve import resolve
from ray_jobs.models.sentence_model import quiet_transformers
from ray_jobs.storage import Storage

_WEIGHTS = "adapter_model.safetensors"
# Transformers takes every weight whose name holds the adapter's for one of its: no weight of a model is called so.
_INSIDE = "tandem_adapter"


def with_adapter(model: Any, name: str, source: str, store: Storage | None) -> Any:
    """`model` with an adapter, as a model of its own.

    `source` is a path or a name, looked for where models are. Raises NotFoundError when no place has it, ModelError
    when it does not fit.
    """
    return over(model, name, resolve(source, store).path)


def over(model: Any, name: str, folder: Path) -> Any:
    """`model` with the adapter in `folder`, as a model of its own; raises ModelError when it does not fit."""
    if not (folder / _WEIGHTS).is_file():
        raise ModelError(
            f"adapter {name!r}: {str(folder)!r} has no {_WEIGHTS}; expected a LoRA adapter saved by PEFT as safetensors"
        )
    try:
        with quiet_transformers():
            adapted = sharing_weights(model)
            loaded = adapted.load_adapter(str(folder), adapter_name=_INSIDE, adapter_kwargs={"local_files_only": True})
        kind = adapted.peft_config[_INSIDE].peft_type
    except Exception as error:
        # PEFT fails in many ways on what it cannot use: the reason is kept, the user gets one line.
        raise ModelError(
            f"adapter {name!r} in {str(folder)!r} cannot be loaded ({type(error).__name__}: "
            f"{(str(error).splitlines() or [''])[0]}): expected a LoRA adapter of this base model"
        ) from error
    wrong = sorted({*loaded.missing_keys, *loaded.unexpected_keys, *(key[0] for key in loaded.mismatched_keys)})
    if wrong or str(kind.value) != "LORA":
        raise ModelError(
            f"adapter {name!r} in {str(folder)!r} does not fit the model ({kind.value}, {len(wrong)} weights, such as "
            f"{(wrong or ['none'])[0]}): expected a LoRA adapter of this base model"
        )
    return adapted.eval()
