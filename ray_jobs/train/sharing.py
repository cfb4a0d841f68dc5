"""How the workers of a run share a step, and which numbers of workers can.

Guaranteed: a step has the same rows, in the same order, for every number of workers that can share it; where a method
learns from a micro-batch as a whole, micro-batches have one size for all of them, elsewhere the largest that fits, up
to the size that is set: never less of it than one part in as many as there are workers. Not guaranteed: that a run uses
all the room there is: of 64 rows in a step, 8 workers take 8 each, and where there is room for 7, 4 take 16 each.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ray_jobs.errors import TandemError
from ray_jobs.train import batches
from ray_jobs.train.methods import method_of

if TYPE_CHECKING:
    from ray_jobs.train.config import TrainConfig, WorkersConfig


class UnsharedStepError(TandemError):
    """So many workers cannot share a step: another group must take over. Its message is their number alone."""

    @property
    def workers(self) -> int:
        """Their number."""
        return int(str(self))


def batches_of(config: TrainConfig, workers: int) -> batches.Batches:
    """How a step is divided among `workers`; raises UnsharedStepError where it cannot be."""
    sizes = config.optimisation
    fitting = _micro_batch(config, workers)
    if fitting is None:
        raise UnsharedStepError(str(workers))
    return batches.plan(sizes.global_batch, fitting, workers)


def counts(config: TrainConfig) -> list[int]:
    """The numbers of workers, from the least to the most that are set, that can share a step; ascending."""
    workers = config.workers
    return [count for count in range(workers.least, workers.most + 1) if _micro_batch(config, count) is not None]


def workers_of(config: TrainConfig, below: int | None = None) -> WorkersConfig:
    """The workers, where both ends of their range can share a step; with `below` fewer than that."""
    workers = config.workers
    if workers.max is None:
        return workers
    found = [count for count in counts(config) if below is None or count < below]
    return workers.model_copy(update={"min": found[0], "max": found[-1]})


def problem(config: TrainConfig) -> str | None:
    """Why no number of workers that is set can share a step, with one remedy; None where one can."""
    sizes, workers = config.optimisation, config.workers
    size, micro = sizes.global_batch, sizes.micro_batch
    if not counts(config):
        whole = (
            workers.most * micro if method_of(config.method).by_micro_batch(config) else math.lcm(workers.most, micro)
        )
        many = f"{workers.least}" if workers.least == workers.most else f"{workers.least} to {workers.most}"
        return (
            f"optimisation.global_batch={size} with optimisation.micro_batch={micro} cannot be shared by {many} "
            f"workers: set optimisation.global_batch={-(-size // whole) * whole}"
        )
    if size % micro:
        fitting = batches.fitting_micro_batch(size, micro, 1)
        return (
            f"optimisation.global_batch={size} is not divided by optimisation.micro_batch={micro}: set "
            f"optimisation.micro_batch={fitting}"
        )
    return None


def _micro_batch(config: TrainConfig, workers: int) -> int | None:
    """The rows that each of so many workers runs at a time; None where they cannot share a step."""
    sizes = config.optimisation
    if not method_of(config.method).by_micro_batch(config):
        return batches.fitting_micro_batch(sizes.global_batch, sizes.micro_batch, workers)
    return None if sizes.global_batch % (sizes.micro_batch * workers) else sizes.micro_batch
