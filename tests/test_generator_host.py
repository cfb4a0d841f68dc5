from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from ray_jobs.answer.engine import Message, Request
from ray_jobs.answer.protocol import Answer, AnswerEvent, Final, Passage, TextDelta
from ray_jobs.errors import ModelError, NotFoundError
from serve.errors import DeadlineError
from serve.generator import GeneratorHost
from serve.messages import CondenseCall, GenerateCall

MESSAGES = (Message("user", "Why?"),)


@dataclass
class Scripted:
    """An engine and its generator in one: gives words, and waits before the one at `stuck` until it is cancelled."""

    words: tuple[str, ...] = ("A", " task", ".")
    stuck: int | None = None
    error: Exception | None = None
    models: tuple[str, ...] = ("base", "base:law")
    needs_passages: bool = False
    made: int = 0
    threads: set[str] = field(default_factory=set)
    cancelled: threading.Event = field(default_factory=threading.Event)
    waiting: threading.Event = field(default_factory=threading.Event)

    def generator(self, request: Request) -> Scripted:
        if request.model not in self.models:
            raise NotFoundError(f"model={request.model}: expected one of {', '.join(self.models)}")
        return self

    def condense(self, messages: Sequence[Message], model: str) -> str:
        if self.stuck is not None:
            self.cancelled.wait(20)
        return f"{messages[-1].content} {model}"

    def cancel(self) -> None:
        self.cancelled.set()

    def stream(self, question: str, passages: Sequence[Passage]) -> Iterator[AnswerEvent]:
        for number, word in enumerate(self.words):
            if number == self.stuck:
                self.waiting.set()
                assert self.cancelled.wait(20)
                return
            self.threads.add(threading.current_thread().name)
            self.made += 1
            yield TextDelta(word)
        if self.error is not None:
            raise self.error
        yield Final(Answer("".join(self.words), (), False))


def call(model: str = "base", budget_s: float = 20) -> GenerateCall:
    return GenerateCall(Request(model, MESSAGES), "Why?", (), budget_s)


async def collect(host: GeneratorHost, call: GenerateCall) -> list[AnswerEvent]:
    return [event async for event in host.stream(call)]


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def test_a_stream_gives_the_events_of_the_generator_made_in_threads() -> None:
    engine = Scripted()
    events = asyncio.run(collect(GeneratorHost(engine), call()))
    assert events == [TextDelta("A"), TextDelta(" task"), TextDelta("."), Final(Answer("A task.", (), False))]
    assert all(name.startswith("answer") for name in engine.threads)


def test_no_event_is_made_before_the_one_before_it_is_taken() -> None:
    async def main() -> None:
        engine = Scripted()
        stream = GeneratorHost(engine).stream(call())
        for taken in (1, 2):
            await anext(stream)
            assert engine.made == taken

    asyncio.run(main())


def test_closing_a_stream_cancels_the_generation() -> None:
    async def main() -> None:
        engine = Scripted()
        stream = GeneratorHost(engine).stream(call())
        await anext(stream)
        assert not engine.cancelled.is_set()
        await stream.aclose()  # type: ignore[attr-defined]  # it is a generator
        assert engine.cancelled.is_set()
        assert engine.made == 1

    asyncio.run(main())


def test_cancelling_the_taker_cancels_a_generation_that_is_waiting_for_its_model() -> None:
    async def main() -> None:
        engine = Scripted(stuck=1)
        task = asyncio.create_task(collect(GeneratorHost(engine), call()))
        await until(engine.waiting.is_set)
        task.cancel()
        started = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert engine.cancelled.is_set()
        assert time.monotonic() - started < 5

    asyncio.run(main())


def test_a_generation_that_is_not_finished_in_time_is_cancelled() -> None:
    engine = Scripted(stuck=2)
    with pytest.raises(DeadlineError, match="not finished in time"):
        asyncio.run(collect(GeneratorHost(engine), call(budget_s=0.2)))
    assert engine.cancelled.is_set()


def test_a_stream_that_waits_for_a_thread_has_its_deadline_too() -> None:
    async def main() -> None:
        busy, next_one = Scripted(stuck=0), Scripted()
        host = GeneratorHost(busy, threads=1)
        task = asyncio.create_task(collect(host, call()))
        await until(busy.waiting.is_set)
        host._engine = next_one
        with pytest.raises(DeadlineError):
            await collect(host, call(budget_s=0.1))
        assert next_one.made == 0
        busy.cancel()
        assert await task == []

    asyncio.run(main())


def test_a_generator_that_forgets_an_early_cancellation_is_cancelled_again() -> None:
    class Forgetting(Scripted):
        started = threading.Event()

        def stream(self, question: str, passages: Sequence[Passage]) -> Iterator[AnswerEvent]:
            self.waiting.set()
            assert self.started.wait(20)
            self.cancelled.clear()  # as generators do that can be used again
            yield TextDelta("late")

    async def main() -> None:
        engine = Forgetting()
        task = asyncio.create_task(collect(GeneratorHost(engine), call()))
        await until(engine.waiting.is_set)
        task.cancel()
        await until(engine.cancelled.is_set)
        engine.started.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(engine.cancelled.is_set)

    asyncio.run(main())


def test_errors_of_the_engine_come_through_as_they_are() -> None:
    host = GeneratorHost(Scripted(error=ModelError("the model failed")))
    with pytest.raises(ModelError, match="the model failed"):
        asyncio.run(collect(host, call()))
    with pytest.raises(NotFoundError, match="expected one of base, base:law"):
        asyncio.run(collect(host, call(model="other")))


def test_streams_run_side_by_side_and_the_loop_never_waits() -> None:
    async def main() -> None:
        stuck, engine = Scripted(stuck=0), Scripted()
        host = GeneratorHost(stuck)
        task = asyncio.create_task(collect(host, call()))
        await until(stuck.waiting.is_set)
        host._engine = engine
        assert len(await asyncio.gather(*(collect(host, call()) for _ in range(8)))) == 8
        stuck.cancel()
        await task

    asyncio.run(main())


def test_condensing_runs_in_a_thread_within_its_budget() -> None:
    condensed = asyncio.run(GeneratorHost(Scripted()).condense(CondenseCall(MESSAGES, "base", 20)))
    assert condensed == "Why? base"
    engine = Scripted(stuck=0)
    with pytest.raises(DeadlineError):
        asyncio.run(GeneratorHost(engine).condense(CondenseCall(MESSAGES, "base", 0.1)))
    engine.cancel()


def test_the_host_says_what_its_engine_has() -> None:
    host = GeneratorHost(Scripted(needs_passages=True))
    assert host.models() == ("base", "base:law")
    assert host.needs_passages()
