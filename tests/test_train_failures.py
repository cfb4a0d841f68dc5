"""Which failures of Ray Train a run goes on after."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import (
    UserExceptionWithTraceback,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)
from train_runs import settings

from ray_jobs.errors import TandemError, UsageError
from ray_jobs.train.failures import raise_unless_lost

CONFIG = settings("sft", Path("b"), Path("d"), Path("s"), "model")


def raised(error: BaseException) -> UserExceptionWithTraceback:
    """What the code of a worker has raised."""
    return UserExceptionWithTraceback(error, traceback_str="")


LOST = [
    WorkerGroupError("failed", {1: WorkerHealthCheckFailedError("a health check failed", ActorDiedError())}),
    WorkerGroupError("failed", {0: ActorDiedError()}),
    WorkerGroupError("failed", {0: raised(RuntimeError("Gloo: Connection closed by peer [127.0.0.1]:4711"))}),
    ControllerError(WorkerGroupStartupTimeoutError(2)),
]


@pytest.mark.parametrize("error", LOST, ids=["health check", "dead", "broken link", "not started"])
def test_a_run_goes_on_after_workers_were_lost(error: Exception) -> None:
    raise_unless_lost(error, CONFIG)


def test_an_error_of_tandems_is_raised_as_itself_whatever_its_peers_met() -> None:
    both = {0: raised(RuntimeError("gloo: connection closed")), 1: raised(UsageError("rows: too short"))}
    with pytest.raises(UsageError, match=r"rows: too short"):
        raise_unless_lost(WorkerGroupError("failed", both), CONFIG)


@pytest.mark.parametrize("error", [KeyError("a defect"), RuntimeError("shape mismatch")])
def test_a_defect_is_not_tried_again(error: Exception) -> None:
    failed = WorkerGroupError("failed", {0: raised(error)})
    with pytest.raises(WorkerGroupError):
        raise_unless_lost(failed, CONFIG)


def test_a_lack_of_memory_says_which_knob() -> None:
    told = OutOfMemoryError("The actor was killed due to the node running low on memory.")
    failed = WorkerGroupError("failed", {0: WorkerHealthCheckFailedError("a health check failed", told)})
    with pytest.raises(TandemError, match=r"lack of memory: lower optimisation.micro_batch"):
        raise_unless_lost(failed, CONFIG)
