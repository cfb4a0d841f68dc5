"""How workers share a step: which numbers of them can, with which micro-batches, what a run does about the others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError
from ray.train import WorkerGroupError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback, WorkerGroupStartupTimeoutError
from ray.train.v2.api.exceptions import ControllerError

from ray_jobs.errors import UsageError
from ray_jobs.progress import LineProgress, SilentProgress
from ray_jobs.runtime import ClusterSize, Machine
from ray_jobs.storage import LocalStorage
from ray_jobs.train import job, sharing, under_way
from ray_jobs.train.config import TrainConfig, WorkersConfig
from ray_jobs.train.failures import unshared_by
from ray_jobs.train.plan import Plan
from ray_jobs.train.sharing import UnsharedStepError
from ray_jobs.train.worker import work

LEARNS_ALIKE, IN_BATCH = "sft", "embedder"


def config(size: int, micro: int, least: int, most: int, method: str = LEARNS_ALIKE) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "method": method,
            "base": "b",
            "data": "d",
            "name": "n",
            "workers": {"min": least, "max": most},
            "optimisation": {"global_batch": size, "micro_batch": micro},
        }
    )


def test_as_many_workers_as_divide_the_step_can_share_it() -> None:
    assert sharing.counts(config(64, 8, 1, 8)) == [1, 2, 4, 8]
    assert sharing.counts(config(64, 32, 1, 8)) == [1, 2, 4, 8]
    assert sharing.counts(config(64, 32, 1, 8, IN_BATCH)) == [1, 2]
    assert sharing.counts(config(60, 10, 2, 7)) == [2, 3, 4, 5, 6]


def test_more_workers_take_smaller_micro_batches_where_that_changes_nothing() -> None:
    found = [sharing.batches_of(config(64, 32, 1, 8), workers) for workers in (1, 2, 4, 8)]
    assert [(plan.micro_batch, plan.accumulation) for plan in found] == [(32, 2), (32, 1), (16, 1), (8, 1)]
    found = [sharing.batches_of(config(64, 16, 1, 8, IN_BATCH), workers) for workers in (1, 2, 4)]
    assert [(plan.micro_batch, plan.accumulation) for plan in found] == [(16, 4), (16, 2), (16, 1)]


def test_workers_that_cannot_share_a_step_say_so_before_anything_else() -> None:
    class Seven:
        rank, world_size, local_rank = 0, 7, 0

        def show(self, metrics: Any) -> None: ...

        def report(self, metrics: Any) -> None: ...

    plan = Plan(config(64, 8, 1, 8), "nowhere", "run", "b", "d", "train", "validation", "cpu", "float32")
    with pytest.raises(UnsharedStepError) as told:
        work(Seven(), plan)
    assert told.value.workers == 7


@given(
    st.integers(1, 300), st.integers(2, 64), st.integers(1, 12), st.integers(0, 6), st.sampled_from(["sft", "embedder"])
)
def test_a_configuration_is_taken_or_its_one_remedy_is(
    size: int, micro: int, least: int, more: int, method: str
) -> None:
    assume(micro <= size)
    try:
        found = config(size, micro, least, least + more, method)
    except ValidationError as refused:
        message = refused.errors()[0]["msg"]
        [(key, value)] = re.findall(r"set optimisation\.(\w+)=(\d+)", message)
        remedied = {"global_batch": size, "micro_batch": micro, key: int(value)}
        found = config(remedied["global_batch"], remedied["micro_batch"], least, least + more, method)
    sizes = found.optimisation
    counts = sharing.counts(found)
    assert counts
    for count in counts:
        plan = sharing.batches_of(found, count)
        assert plan.global_batch == sizes.global_batch
        assert sizes.micro_batch >= plan.micro_batch >= sizes.micro_batch / count
        assert method != IN_BATCH or plan.micro_batch == sizes.micro_batch


def test_a_worker_that_is_asked_for_is_not_left_out() -> None:
    """A range is as wide as the numbers in it that can share a step."""
    assert sharing.workers_of(config(64, 8, 3, 7)) == WorkersConfig(min=4, max=4)
    assert sharing.workers_of(config(64, 8, 1, 8), below=7) == WorkersConfig(min=1, max=4)
    plan = Plan(config(64, 8, 3, 7), "s", "run", "b", "d", "train", "validation", "cpu", "float32")
    with pytest.raises(UsageError, match=r"workers=4 with 1 CPUs each: the cluster has 3"):
        job.placed(plan, ClusterSize(3, 0))


class Attempts:
    """Groups of workers as Ray makes them where there is room for so many; `lost` is how often the first are lost."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.given: list[tuple[str, int, int]] = []

    def __call__(self, number: str, workers: WorkersConfig, stage: Any, notes: str) -> BaseException | None:
        self.given.append((number, workers.least, workers.most))
        many = min(self.room, workers.most)
        assert many >= workers.least
        try:
            sharing.batches_of(config(64, 8, 1, 8), many)
        except UnsharedStepError as error:
            failure = UserExceptionWithTraceback(error, traceback_str="")
            return WorkerGroupError("failed", dict.fromkeys(range(many), failure))
        return None


@pytest.mark.parametrize(
    ("room", "expected"),
    [(8, [("0-0-0", 1, 8)]), (7, [("0-0-0", 1, 8), ("0-1-0", 1, 4)]), (3, [("0-0-0", 1, 8), ("0-1-0", 1, 2)])],
)
def test_a_run_takes_as_many_workers_as_there_is_room_for_and_can_share_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, expected: list[tuple[str, int, int]]
) -> None:
    storage = LocalStorage(tmp_path)
    plan = Plan(config(64, 8, 1, 8), storage.uri, "run", "b", "d", "train", "validation", "cpu", "float32")
    attempts = Attempts(room)
    monkeypatch.setattr(under_way.Run, "_attempt", lambda run, *given: attempts(*given))
    assert under_way.Run(plan, storage, ClusterSize(8, 0), SilentProgress()).train() == 0
    assert attempts.given == expected


def test_a_run_that_finds_no_room_waits_says_for_what_and_counts_no_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = LocalStorage(tmp_path)
    plan = Plan(config(64, 8, 2, 2), storage.uri, "run", "b", "d", "train", "validation", "cpu", "float32")
    given: list[str] = []

    def attempt(run: object, number: str, *others: object) -> BaseException | None:
        given.append(number)
        return None if len(given) == 3 else ControllerError(WorkerGroupStartupTimeoutError(2))

    sizes = iter([ClusterSize(1, 0), ClusterSize(4, 0, (Machine(2), Machine(2)))])
    monkeypatch.setattr(under_way.Run, "_attempt", attempt)
    monkeypatch.setattr(under_way, "cluster_size", lambda: next(sizes))
    assert under_way.Run(plan, storage, ClusterSize(2, 0), LineProgress()).train() == 0
    assert given == ["0-0-0", "0-0-1", "0-0-2"]
    told = [line for line in capsys.readouterr().err.splitlines() if "waiting" in line]
    assert told[0].startswith("train   waiting for room for 2 workers with 1 CPUs each: the machines that are there")
    assert "have room for 1; interrupted, the run goes on by the same command" in told[0]
    assert "each: other work takes it; interrupted" in told[1]


def test_another_failure_of_a_group_is_none_of_its_number() -> None:
    failure = UserExceptionWithTraceback(UsageError("rows: too short"), traceback_str="")
    assert unshared_by(WorkerGroupError("failed", {0: failure})) is None
