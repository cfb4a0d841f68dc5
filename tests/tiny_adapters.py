"""LoRA adapters of small bases, made on the spot with a fixed seed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray_jobs.models.sentence_model import quiet_transformers


@contextmanager
def quietly() -> Iterator[None]:
    """PEFT asks models for a property that transformers has renamed."""
    with quiet_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def adapter(base: Path, folder: Path, task: str, heads: tuple[str, ...] = ()) -> None:
    """A LoRA adapter of `base` with random weights, and its head whole."""
    import torch
    from transformers import (
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForQuestionAnswering,
        AutoModelForSequenceClassification,
    )

    loaders = {
        "QUESTION_ANS": AutoModelForQuestionAnswering,
        "SEQ_CLS": AutoModelForSequenceClassification,
        "CAUSAL_LM": AutoModelForCausalLM,
        "FEATURE_EXTRACTION": AutoModel,
    }
    torch.manual_seed(3)
    labels = {"num_labels": 1} if task == "SEQ_CLS" else {}
    with quietly():
        _save_adapter(loaders[task].from_pretrained(base, **labels), folder, task, heads)


def _save_adapter(network: Any, folder: Path, task: str, heads: tuple[str, ...]) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=4, task_type=task, target_modules="all-linear", modules_to_save=list(heads) or None, init_lora_weights=False
    )
    if heads:
        config.exclude_modules = list(heads)
    get_peft_model(network, config).save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
