"""An adapter put over a network that is loaded already, to be switched on and off."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from ray_jobs.models.adapter import ADAPTER_CONFIG
from ray_jobs.models.sentence_model import quiet_transformers


def is_adapter(folder: Path) -> bool:
    """Whether a folder of a checkpoint has an adapter, and not a whole model."""
    return (folder / ADAPTER_CONFIG).is_file()


def over(network: Any, folder: Path) -> Any:
    """The network with the adapter of `folder` (a PeftModel), ready for inference; the network itself is changed."""
    from peft import PeftModel

    with quiet_transformers(), warnings.catch_warnings():
        # PEFT asks models for a property that transformers has renamed.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        return PeftModel.from_pretrained(network, str(folder)).eval()
