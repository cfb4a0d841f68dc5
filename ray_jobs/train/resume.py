"""Where a run goes on: the newest complete checkpoint, made to fit the workers that are there now.

Guaranteed: a checkpoint of another base, method or data is refused; with another number of workers than the one that
made it, a sharded checkpoint is converted once on each machine. Not guaranteed: that random numbers (dropout) are those
of an uninterrupted run where the number of workers has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ray_jobs.errors import UsageError
from ray_jobs.train.checkpoints import Checkpoint, Checkpoints, of_worker
from ray_jobs.train.universal import convert


@dataclass(frozen=True, slots=True)
class Expected:
    """What a checkpoint must have been made from."""

    method: str
    base: str
    base_revision: str
    data_hash: str


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """A local folder to resume from; `universal` says that it must be loaded in the universal form."""

    folder: Path
    step: int
    universal: bool


def newest(checkpoints: Checkpoints, expected: Expected) -> Checkpoint | None:
    """The newest complete checkpoint; None before the first. Raises UsageError where it belongs to something else."""
    found = checkpoints.complete()
    if not found:
        return None
    check(found[-1], expected)
    return found[-1]


def check(checkpoint: Checkpoint, expected: Expected) -> None:
    """Raise UsageError for a checkpoint that was made from something else."""
    pairs = [
        ("method", checkpoint.method, expected.method),
        (f"the revision of base={expected.base}", checkpoint.base_revision, expected.base_revision),
        ("the hash of the data", checkpoint.data_hash, expected.data_hash),
    ]
    for what, was, now in pairs:
        if was != now:
            raise UsageError(
                f"checkpoint {checkpoint.key}: {what} was {was} and is {now}; choose another name for this run, or "
                "restore what the checkpoint was made from"
            )


def needs_conversion(checkpoint: Checkpoint, workers: int) -> bool:
    """Whether `workers` can load it only in the universal form: sharded by ZeRO for another number of them."""
    return checkpoint.engine == "deepspeed" and checkpoint.stage > 0 and checkpoint.workers != workers


def fit(
    checkpoint: Checkpoint,
    checkpoints: Checkpoints,
    workers: int,
    rank: int,
    converted: Path,
    first_on_machine: Callable[[Callable[[], object]], None],
) -> ResumePoint:
    """Bring a checkpoint to this machine, in the form that `workers` can load, of which this one has the rank `rank`.

    `converted` is the folder for a converted one, the same for all workers of a machine; `first_on_machine` runs what
    it is given on one of them while the others wait. Of one that is not converted a machine gets what all share and
    the shards of its own workers.
    """
    if not needs_conversion(checkpoint, workers):
        own = partial(of_worker, rank)
        first_on_machine(lambda: checkpoints.fetch(checkpoint, own))
        return ResumePoint(checkpoints.fetch(checkpoint, own), checkpoint.step, universal=False)
    first_on_machine(lambda: checkpoints.fetch(checkpoint))
    folder = checkpoints.fetch(checkpoint)
    first_on_machine(lambda: convert(folder, converted))
    return ResumePoint(converted, checkpoint.step, universal=True)
