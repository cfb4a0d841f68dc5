"""A search over the rates of a toy, of which one is clearly the best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import train_bases

BEST = 0.003


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """The search, in `folder`; `changes` take the place of its keys."""
    train = {
        "method": "sft",
        "base": str(folder / "chat"),
        "data": str(folder / "talk"),
        "store": str(folder / "store"),
        "name": "tuned",
        "optimisation": {
            "global_batch": 16,
            "micro_batch": 8,
            "max_steps": 60,
            "warmup": 0,
            "schedule": "constant",
            "precision": "float32",
        },
        "sequence": {"max_length": 32},
        "checkpoints": {"every_steps": 15},
    }
    space = {"optimisation.learning_rate": {"type": "choice", "values": [BEST, 1e-5, 1e-6]}}
    return {"train": train, "space": space, "search": "grid", "parallel": 1, **changes}


def make(folder: Path) -> Path:
    """The base and the conversations of the search, in `folder`; returns it."""
    train_bases.language_model(folder / "chat")
    train_bases.conversations(folder / "talk", train=256, validation=16)
    return folder
