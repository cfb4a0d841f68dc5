"""The layers of the API one by one, where a whole server would hide what is proved."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from fake_backend import make_hits
from pydantic import BaseModel

from ray_jobs.answer.asking import to_passages
from ray_jobs.answer.engine import Message, Request
from ray_jobs.answer.protocol import Answer, AnswerEvent, Final, TextDelta
from serve.api.connection import Connection
from serve.api.deadline import Deadline
from serve.api.event_stream import EventStream
from serve.api.keys import EVERYBODY
from serve.api.request_context import Caller, RequestContext, begin
from serve.api.running_answer import RunningAnswer
from serve.errors import UnavailableError
from serve.messages import GenerateCall


class Events:
    """An iterator of events that knows whether it was closed."""

    def __init__(self, *events: AnswerEvent | Exception) -> None:
        self._events = iter(events)
        self.closed = 0

    async def __anext__(self) -> AnswerEvent:
        for event in self._events:
            if isinstance(event, Exception):
                raise event
            return event
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed += 1


def running(events: Any) -> RunningAnswer:
    request = Request("base", (Message("user", "What?"),))
    call = GenerateCall(request, "What?", tuple(to_passages(make_hits(2))), 5.0)
    return RunningAnswer(events, call, None, {}, Deadline.after(5, time.monotonic()))


def test_a_generation_is_closed_whether_it_is_read_or_not() -> None:
    async def read(count: int) -> int:
        events = Events(TextDelta("a"), TextDelta("b"), Final(Answer("ab", (), grounded=False)))
        async with running(events) as answer:
            pieces = answer.events()
            for _ in range(count):
                await anext(pieces)
        return events.closed

    assert [asyncio.run(read(count)) for count in range(4)] == [1, 1, 1, 1]


def test_a_generation_that_fails_at_once_is_closed_and_fails_before_it_is_read() -> None:
    events = Events(UnavailableError("gone"))

    async def begin_it() -> None:
        async with running(events):
            pytest.fail("it has failed")

    with pytest.raises(UnavailableError):
        asyncio.run(begin_it())
    assert events.closed == 1


class Word(BaseModel):
    word: str


def caller(seconds: float) -> Caller:
    return Caller(EVERYBODY, Deadline.after(seconds, time.monotonic()), RequestContext("id", seconds))


async def endless() -> AsyncGenerator[BaseModel, None]:
    while True:
        yield Word(word="x")


async def sent_by(stream: EventStream) -> list[bytes]:
    sent: list[bytes] = []

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    await stream({}, _never, send)
    return sent


async def _never() -> Any:
    raise AssertionError("nothing is received")


def test_a_stream_that_never_waits_ends_at_its_deadline_and_lets_others_have_their_turn() -> None:
    async def run() -> tuple[list[bytes], int]:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        sent = await sent_by(EventStream(endless(), AsyncExitStack(), caller(0.2), {}))
        task.cancel()
        return sent, turns

    sent, turns = asyncio.run(run())
    assert b"deadline_exceeded" in sent[-1]
    assert sent[-1].endswith(b"data: [DONE]\n\n")
    assert turns > 10


def test_what_a_stream_is_made_from_is_closed_even_if_its_start_cannot_be_sent() -> None:
    closed: list[str] = []

    async def run() -> None:
        held = AsyncExitStack()
        held.callback(closed.append, "closed")

        async def send(message: Any) -> None:
            raise OSError("gone")

        with pytest.raises(OSError, match="gone"):
            await EventStream(endless(), held, caller(1), {})({}, _never, send)

    asyncio.run(run())
    assert closed == ["closed"]


def serve_once(app: Any, receive: Callable[[], Any], seconds: float = 5.0) -> tuple[list[Any], bool]:
    """What `app` sends behind a Connection, and whether the client is taken to have left."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> bool:
        scope: dict[str, Any] = {"type": "http", "headers": []}
        context = begin(scope, seconds)
        await Connection(app, 100)(scope, receive, send)
        return context.gone

    return sent, asyncio.run(run())


def test_a_server_that_says_disconnected_after_a_complete_response_cancels_nothing() -> None:
    completed = asyncio.Event()
    tidied: list[str] = []
    messages = iter([{"type": "http.request", "body": b""}])

    async def receive() -> Any:
        message = next(messages, None)
        if message is None:
            await completed.wait()
            return {"type": "http.disconnect"}
        return message

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.body", "body": b"all"})
        completed.set()
        await asyncio.sleep(0.05)
        tidied.append("tidied")

    _, gone = serve_once(app, receive)
    assert (tidied, gone) == (["tidied"], False)


def test_a_client_that_leaves_while_it_sends_is_not_answered() -> None:
    messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    sent, gone = serve_once(_never, receive)
    assert (sent, gone) == ([], True)


def test_a_body_in_pieces_is_one_and_nothing_comes_after_it() -> None:
    pieces = [{"type": "http.request", "body": piece, "more_body": piece != b"c"} for piece in (b"a", b"b", b"c")]
    messages = iter(pieces)
    seen: list[bytes] = []

    async def receive() -> Any:
        message = next(messages, None)
        if message is None:
            await asyncio.get_running_loop().create_future()
        return message

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((await receive())["body"])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 0.05)

    serve_once(app, receive)
    assert seen == [b"abc"]
