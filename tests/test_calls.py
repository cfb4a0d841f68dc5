"""Calls between deployments: time, death and errors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from ray_jobs.errors import NotFoundError
from serve.calls import call, events, everywhere
from serve.errors import BusyError, DeadlineError, UnavailableError


class Response:
    """What a handle's call gives: awaitable, or an iterator of items, and cancellable."""

    def __init__(self, answer: Callable[[], Any], items: list[Any] | None = None) -> None:
        self._answer = answer
        self._items = list(items or ())
        self.cancelled = False

    def __await__(self) -> Any:
        return self._get().__await__()

    async def _get(self) -> Any:
        found = self._answer()
        if isinstance(found, BaseException) and not isinstance(found, NotFoundError):
            raise found
        return await found if asyncio.iscoroutine(found) else found

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if not self._items:
            raise StopAsyncIteration
        item = self._items.pop(0)
        if item == "wait":
            await asyncio.sleep(60)
        if isinstance(item, Exception) and not isinstance(item, NotFoundError):
            raise item
        return item

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    """A deployment that answers as told, one answer a call."""

    deployment_name = "Partition-0"

    def __init__(self, *answers: Any, items: list[Any] | None = None, streams: Sequence[list[Any]] = ()) -> None:
        self.answers = list(answers)
        self.items = items
        self.streams = list(streams)  # items of one stream after the other, instead of the same for all
        self.responses: list[Response] = []

    def options(self, stream: bool) -> Handle:
        return self

    def __getattr__(self, method: str) -> Any:
        handle = self

        class Method:
            def remote(self, *arguments: object) -> Response:
                answer = handle.answers.pop(0) if handle.answers else None
                items = handle.streams.pop(0) if handle.streams else handle.items
                response = Response(lambda: answer, items)
                handle.responses.append(response)
                return response

        return Method()

    def broadcast(self, method: str, *arguments: object) -> Any:
        raise DeploymentUnavailableError(self.deployment_name)


def dead() -> ActorDiedError:
    return ActorDiedError()


def test_a_call_gives_what_the_replica_returns() -> None:
    assert asyncio.run(call(Handle(7), "search", timeout_s=5)) == 7


def test_a_call_that_takes_too_long_ends_in_time_and_is_cancelled() -> None:
    async def slow() -> None:
        await asyncio.sleep(60)

    handle = Handle(slow())
    started = time.monotonic()
    with pytest.raises(DeadlineError, match=r"Partition-0: no answer within 0\.05 s"):
        asyncio.run(call(handle, "search", timeout_s=0.05))
    assert time.monotonic() - started < 10
    assert handle.responses[0].cancelled


def test_a_call_is_made_once_more_when_the_replica_dies() -> None:
    handle = Handle(dead(), 7)
    assert asyncio.run(call(handle, "search", timeout_s=5)) == 7
    assert len(handle.responses) == 2


def test_a_second_death_is_an_unavailable_deployment() -> None:
    with pytest.raises(UnavailableError, match="no replica answers"):
        asyncio.run(call(Handle(dead(), dead()), "search", timeout_s=5))


def test_a_full_queue_is_busy_and_not_tried_again() -> None:
    handle = Handle(BackPressureError(5, 5))
    with pytest.raises(BusyError, match="its queue is full"):
        asyncio.run(call(handle, "search", timeout_s=5))
    assert len(handle.responses) == 1


def test_an_error_that_the_replica_returns_is_raised() -> None:
    with pytest.raises(NotFoundError, match="index=x"):
        asyncio.run(call(Handle(NotFoundError("index=x: not served")), "search", timeout_s=5))


def test_a_defect_keeps_its_type() -> None:
    with pytest.raises(ZeroDivisionError):
        asyncio.run(call(Handle(ZeroDivisionError()), "search", timeout_s=5))


async def gathered(handle: Handle, timeout_s: float = 5, most: int = 99) -> list[Any]:
    found: list[Any] = []
    stream = events(handle, "stream", timeout_s=timeout_s)
    async for item in stream:
        found.append(item)
        if len(found) == most:
            break
    await stream.aclose()  # type: ignore[attr-defined]
    return found


def test_a_stream_gives_its_items_and_is_not_cancelled_at_its_end() -> None:
    handle = Handle(items=[1, 2, 3])
    assert asyncio.run(gathered(handle)) == [1, 2, 3]
    assert not handle.responses[0].cancelled


def test_closing_a_stream_early_cancels_it() -> None:
    handle = Handle(items=[1, 2, 3])
    assert asyncio.run(gathered(handle, most=1)) == [1]
    assert handle.responses[0].cancelled


def test_a_stream_that_stands_still_ends_in_time_and_is_cancelled() -> None:
    handle = Handle(items=[1, "wait", 2])
    with pytest.raises(DeadlineError, match="not finished within"):
        asyncio.run(gathered(handle, timeout_s=0.1))
    assert handle.responses[0].cancelled


@pytest.mark.parametrize(("item", "kind"), [(dead(), UnavailableError), (NotFoundError("model=x"), NotFoundError)])
def test_an_error_in_a_stream_ends_it(item: Exception, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        asyncio.run(gathered(Handle(items=[1, item, 2])))


def test_a_stream_of_which_nothing_was_seen_begins_anew_when_the_replica_dies() -> None:
    handle = Handle(streams=[[dead()], [1, 2]])
    assert asyncio.run(gathered(handle)) == [1, 2]
    assert not handle.responses[1].cancelled


def test_a_stream_of_which_something_was_seen_is_not_begun_anew() -> None:
    handle = Handle(streams=[[1, dead()], [1, 2]])
    with pytest.raises(UnavailableError, match="no replica answers"):
        asyncio.run(gathered(handle))
    assert len(handle.responses) == 1


def test_a_stream_whose_second_replica_dies_too_is_unavailable() -> None:
    with pytest.raises(UnavailableError, match="no replica answers"):
        asyncio.run(gathered(Handle(streams=[[dead()], [dead()], [1]])))


def test_a_broadcast_without_replicas_is_unavailable() -> None:
    with pytest.raises(UnavailableError):
        asyncio.run(everywhere(Handle(), "held", [], timeout_s=1))
