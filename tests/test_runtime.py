"""What comes back from Ray: receipts as they come, and Tandem's own errors as themselves."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from contextvars import copy_context
from typing import Any

import pytest
from signals import at_every_line

from ray_jobs.errors import StorageError, UsageError
from ray_jobs.runtime import ClusterSize, find_cause, raise_if_interrupted, session, stream, terminated_as_interrupt


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


@pytest.mark.usefixtures("ray_session")
def test_a_session_under_way_is_used_and_left_running() -> None:
    import ray

    with session() as size:
        assert size == ClusterSize(2, 0)
    assert ray.is_initialized()


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
