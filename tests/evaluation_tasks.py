"""Tasks for judges: what a worker would train, without one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from train_runs import settings

from ray_jobs.train import batches
from ray_jobs.train.methods import Place, Splits, Task


def at_once(make: Callable[[], object]) -> None:
    make()


def task(folder: Path, method: str, base: Path, data: Path, **changes: Any) -> Task:
    config = settings(method, base, data, folder / "store", "model", **changes)
    sizes = config.optimisation
    return Task(
        config=config,
        base=base,
        base_revision="b",
        splits=Splits(data / "train.parquet", data / "validation.parquet", "0" * 64, folder / "cache"),
        output=folder / "output",
        batches=batches.plan(sizes.global_batch, sizes.micro_batch, 1),
        place=Place("cpu", "float32", 0, 1, at_once),
        deepspeed=None,
    )


def columns(file: Path) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = pq.read_table(file).to_pydict()
    return found
