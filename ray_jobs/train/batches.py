"""The arithmetic of batches: what a step consists of, whatever the number of workers.

Guaranteed: global batch = micro-batch x accumulation x workers; a step has the same rows for every number of workers,
because micro-batches are dealt out in turn and each step takes a whole number of rounds. The order of all rows of a run
is fixed before it starts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ray_jobs.errors import UsageError


@dataclass(frozen=True, slots=True)
class Batches:
    """How one step is divided."""

    micro_batch: int  # rows that one worker runs at a time
    accumulation: int  # micro-batches of one worker in a step
    workers: int

    @property
    def global_batch(self) -> int:
        """Rows of one step."""
        return self.micro_batch * self.accumulation * self.workers


def plan(global_batch: int, micro_batch: int, workers: int) -> Batches:
    """Divide a step among workers; raises UsageError where it cannot be divided into such micro-batches."""
    if global_batch % (micro_batch * workers):
        raise UsageError(
            f"optimisation.global_batch={global_batch} is not divided by optimisation.micro_batch={micro_batch} x "
            f"{workers} workers: choose a multiple"
        )
    return Batches(micro_batch, global_batch // (micro_batch * workers), workers)


def fitting_micro_batch(global_batch: int, micro_batch: int, workers: int) -> int | None:
    """The largest micro-batch up to `micro_batch` that divides the step among `workers`; None if there is none."""
    if global_batch % workers:
        return None
    share = global_batch // workers
    return next(size for size in range(min(micro_batch, share), 0, -1) if share % size == 0)


def steps(rows: int, global_batch: int, epochs: float, max_steps: int | None) -> int:
    """Steps of a whole run over `rows` training rows."""
    return max_steps or max(1, math.ceil(epochs * rows / global_batch))


def order(rows: int, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Indices of the `count` rows that a whole run sees, int64: one permutation of all rows after the other.

    The order is known before the first step and depends on nothing else, so that a run that resumes, with however many
    workers, goes on with the very next row.
    """
    epochs = -(-count // rows)
    permutations = [np.random.default_rng([seed, epoch]).permutation(rows) for epoch in range(epochs)]
    return np.concatenate(permutations)[:count].astype(np.int64)
