"""Between the workers of a run and its driver, while the run lasts: how far it is, and the word to stop.

Guaranteed: a worker that starts after the driver has given up does no work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray_jobs.progress import Stage


class Board:
    """Holds the last that the first worker has shown, and who the workers are; an actor."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}
        self._workers: list[Any] = []
        self._closed = False

    def put(self, metrics: dict[str, float]) -> None:
        """Leave metrics for the driver."""
        self._last = {**self._last, **metrics}

    def take(self) -> dict[str, float]:
        """All metrics, each as it was last put."""
        return self._last

    def join(self, worker: list[Any]) -> bool:
        """Make a worker (a list of its handle) known; False: the run was stopped."""
        self._workers += worker
        return not self._closed

    def close(self) -> list[Any]:
        """Let no more workers begin; returns those that have."""
        self._closed = True
        return self._workers


class Seen:
    """How much of the run has been shown, over all groups of workers."""

    def __init__(self) -> None:
        self._step = 0.0
        self._tokens = 0.0

    def advance(self, stage: Stage, found: dict[str, float]) -> None:
        """Show on `stage`, whose total is 1, what is new in the board's metrics."""
        steps = found.get("steps")
        if not steps:
            return
        if not self._step and (begun := found.get("begun", 0)):
            self._step = begun
            stage.skip(begun / steps)
        if found["step"] <= self._step:
            return
        # A new group of workers counts from nothing.
        tokens = found.get("tokens", 0)
        new = tokens - self._tokens if tokens >= self._tokens else tokens
        if "loss" in found:
            stage.show(loss=found["loss"])
        done = found["step"] - self._step
        stage.advance(done / steps, steps=int(done), **({"tokens": int(new)} if tokens else {}))
        self._step, self._tokens = found["step"], tokens


def stop(board: Any, kill: Callable[[Any], None]) -> None:
    """Let no more workers of `board` (an actor) begin, and `kill` those that have."""
    import ray

    for worker in ray.get(board.close.remote()):
        kill(worker)
