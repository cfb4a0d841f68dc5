"""What comes back from Ray: receipts as they come, and Tandem's own errors as themselves."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from signals import at_every_line
from waiting import wait_for

from ray_jobs.errors import StorageError, UsageError
from ray_jobs.runtime import (
    ClusterSize,
    Machine,
    Needs,
    cluster_size,
    find_cause,
    raise_if_interrupted,
    retries,
    session,
    stream,
    terminated_as_interrupt,
)


@pytest.fixture
def workers(ray_session: None) -> Iterator[None]:
    """Workers do not have this file on their path; what it defines travels with the task."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def double(batch: dict[str, Any], arguments: tuple[int]) -> Iterator[dict[str, Any]]:
    for number in batch["number"]:
        if number == arguments[0]:
            raise StorageError(f"number={number}: refused; choose another")
        yield {"double": [int(number) * 2]}


class Adder:
    def __init__(self, addend: int) -> None:
        self.addend = addend

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for number in batch["number"]:
            yield {"sum": [int(number) + self.addend]}


@pytest.mark.usefixtures("workers")
def test_every_item_comes_back_once_from_tasks_and_from_actors() -> None:
    items: list[dict[str, object]] = [{"number": number} for number in range(9)]
    doubled = stream(items, double, arguments=(-1,))
    assert sorted(row["double"] for row in doubled) == list(range(0, 18, 2))
    added = stream(items, Adder, arguments=(100,), actors=(1, 2), batch_size=4)
    assert sorted(row["sum"] for row in added) == list(range(100, 109))


@pytest.mark.usefixtures("workers")
def test_an_error_raised_in_a_worker_arrives_as_itself_in_one_line() -> None:
    with pytest.raises(StorageError) as caught:
        list(stream([{"number": number} for number in range(4)], double, arguments=(2,)))
    assert type(caught.value) is StorageError
    assert str(caught.value) == "number=2: refused; choose another"


def dying(batch: dict[str, Any], arguments: tuple[str]) -> Iterator[dict[str, Any]]:
    """Its worker dies when it does the first item for the first time."""
    mark = Path(arguments[0])
    for number in batch["number"]:
        if number == 0 and not mark.exists():
            mark.touch()
            os._exit(1)
        yield {"number": [int(number)], "retries": [retries()]}


@pytest.mark.usefixtures("workers")
def test_a_task_whose_worker_was_lost_says_how_often_it_was_tried(tmp_path: Path) -> None:
    items: list[dict[str, object]] = [{"number": number} for number in range(3)]
    rows = stream(items, dying, arguments=(str(tmp_path / "mark"),))
    assert sorted((row["number"], row["retries"]) for row in rows) == [(0, 1), (1, 0), (2, 0)]
    assert retries() == 0


@pytest.mark.usefixtures("ray_session")
def test_a_session_under_way_is_used_and_left_running() -> None:
    import ray

    with session() as size:
        assert size == ClusterSize(2, 0, (Machine(2, free_cpus=size.machines[0].free_cpus),))
    assert ray.is_initialized()


@pytest.mark.parametrize(
    ("machines", "cpus"),
    [
        ([Machine(8, free_cpus=5)], 5),
        ([Machine(8, free_cpus=1.5), Machine(4, free_cpus=4)], 4),
        ([Machine(64, free_cpus=60)], 8),
        ([Machine(8, free_cpus=0)], 8),
    ],
)
def test_an_actor_takes_no_more_than_is_free_where_something_is(machines: list[Machine], cpus: int) -> None:
    assert ClusterSize(int(sum(machine.cpus for machine in machines)), 0, tuple(machines)).actor_cpus == cpus


@pytest.mark.usefixtures("ray_session")
def test_what_others_hold_is_not_free() -> None:
    import ray

    holder = ray.remote(num_cpus=1)(type("Holder", (), {"ready": lambda _: True})).remote()
    assert ray.get(holder.ready.remote())
    wait_for(lambda: cluster_size().actor_cpus == 1)
    ray.kill(holder)
    wait_for(lambda: cluster_size().actor_cpus == 2)


MACHINES = st.lists(st.builds(Machine, st.integers(0, 64), st.integers(0, 8)), min_size=1, max_size=6)


@given(MACHINES, st.sampled_from([0.1, 0.5, 1, 2, 3, 8, 17]), st.integers(0, 3))
def test_there_is_room_for_what_fits_on_machines_one_by_one(machines: list[Machine], cpus: float, gpus: int) -> None:
    size = ClusterSize(int(sum(m.cpus for m in machines)), int(sum(m.gpus for m in machines)), tuple(machines))
    placed = 0
    for machine in machines:
        own = 0
        while (own + 1) * cpus <= machine.cpus + 1e-6 and (own + 1) * gpus <= machine.gpus:
            own += 1
        placed += own
    assert size.room(cpus, gpus) == placed
    assert size.largest == max(1, *(machine.cpus for machine in machines), 1)
    assert ClusterSize(size.cpus, size.gpus).room(cpus, gpus) >= placed


@pytest.mark.parametrize(("machines", "cpus"), [([1, 1], 1), ([4, 4, 4], 4), ([2, 16], 8), ([6], 6)])
def test_an_actor_that_runs_a_model_fits_on_a_machine(machines: list[int], cpus: int) -> None:
    size = ClusterSize(sum(machines), 0, tuple(Machine(own) for own in machines))
    assert size.actor_cpus == cpus
    assert size.room(size.actor_cpus) >= 1


def test_nothing_to_do_starts_nothing() -> None:
    assert list(stream([], double)) == []


def test_the_cause_is_found_below_what_wraps_it() -> None:
    try:
        try:
            raise UsageError("key=value: wrong")
        except UsageError as error:
            raise RuntimeError("wrapped") from error
    except RuntimeError as error:
        cause = find_cause(error)
    assert isinstance(cause, UsageError)
    assert find_cause(RuntimeError("no cause")) is None


def test_a_terminated_job_is_interrupted() -> None:
    with pytest.raises(KeyboardInterrupt), terminated_as_interrupt():
        signal.raise_signal(signal.SIGTERM)


def test_an_interrupt_that_native_code_swallowed_is_raised_again() -> None:
    with terminated_as_interrupt():
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            raise_if_interrupted()
    raise_if_interrupted()


def test_signals_that_come_while_one_is_handled_are_one_interrupt() -> None:
    def work() -> None:
        with at_every_line(), terminated_as_interrupt():
            time.sleep(30)

    with pytest.raises(KeyboardInterrupt):
        copy_context().run(work)


@pytest.mark.parametrize(("cpus", "laptop"), [(2, True), (4, True), (8, False)])
def test_few_cpus_mean_the_laptop_profile(cpus: int, laptop: bool) -> None:
    assert ClusterSize(cpus, 0).is_laptop is laptop


NAMED = (Machine(4, resources={"readers": 2}), Machine(4, 1, resources={"gpu_box": 1.5}), Machine(16))


@pytest.mark.parametrize(
    ("needs", "room"),
    [
        (Needs(1), 24),
        (Needs(1, resources={"readers": 1}), 2),
        (Needs(3, resources={"readers": 1}), 1),
        (Needs(1, 0.25, {"gpu_box": 0.5}), 3),
        (Needs(1, 0, {"absent": 1}), 0),
    ],
)
def test_named_resources_bound_the_room_as_cpus_do(needs: Needs, room: int) -> None:
    assert ClusterSize(24, 1, NAMED).room(needs.cpus, needs.gpus, needs.resources) == room
