"""A worker of a run as a worker of Ray Train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray_jobs.errors import TandemError
from ray_jobs.train.allocator import keep_freed_memory
from ray_jobs.train.worker import work


class RaySession:
    """A worker of Ray Train; `board` is the driver's actor for progress, if it looks at any."""

    def __init__(self, board: Any = None) -> None:
        import ray
        import ray.train

        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.local_rank: int = context.get_local_rank()
        self._board = board
        if board is not None and not ray.get(board.join.remote([ray.get_runtime_context().current_actor])):
            raise TandemError("the run was stopped before this worker began; run the same command to go on")

    def show(self, metrics: Mapping[str, float]) -> None:
        """Leave the metrics where the driver looks."""
        if self._board is not None and self.rank == 0:
            self._board.put.remote(dict(metrics))

    def report(self, metrics: Mapping[str, float]) -> None:
        """Tell Ray Train, and so Ray Tune; a barrier over all workers.

        The controller takes one report at each of its looks at the workers, and the next one waits for that: to report
        every step would cost more than the steps.
        """
        import ray.train

        ray.train.report(dict(metrics))


def train_loop(arguments: dict[str, Any]) -> None:
    """What Ray Train runs on every worker, in a process that is its own."""
    keep_freed_memory()
    work(RaySession(arguments["board"]), arguments["plan"])
