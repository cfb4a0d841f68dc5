"""The generator: one engine whose blocking answers become streams of an event loop.

Guaranteed: a stream ends within its budget, by a DeadlineError at the latest; closing or cancelling it cancels the
generation at once, also while it waits for a thread; at most one event is made ahead of its taker; the loop never
waits for a model. Errors of the engine come through as they are. Not guaranteed: that a thread is free; more streams
than threads wait, and their budget runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ray_jobs.answer.engine import Engine
from ray_jobs.answer.protocol import AnswerEvent, Generator
from serve.errors import DeadlineError
from serve.messages import CondenseCall, GenerateCall

_THREADS = 64
"""Streams at a time; each holds a thread only while it waits for its next event."""

T = TypeVar("T")


class GeneratorHost:
    """Answers calls with one engine."""

    def __init__(self, engine: Engine, threads: int = _THREADS) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="answer")

    def models(self) -> tuple[str, ...]:
        """Names that a request may ask for, the default first."""
        return self._engine.models

    def needs_passages(self) -> bool:
        """Whether a request without retrieval is refused."""
        return self._engine.needs_passages

    async def stream(self, call: GenerateCall) -> AsyncIterator[AnswerEvent]:
        """The events of an answer as they come; the last one is Final.

        Raises DeadlineError when the budget is over, and what the engine raises.
        """
        until = time.monotonic() + call.budget_s
        generator = await self._within(until, lambda: self._engine.generator(call.request))
        events = generator.stream(call.question, call.passages)
        try:
            while (event := await self._within(until, lambda: next(events, None), generator)) is not None:
                yield event
        finally:
            generator.cancel()

    async def condense(self, call: CondenseCall) -> str:
        """The last question of a conversation, understandable without the turns before it. Raises as `stream` does."""
        until = time.monotonic() + call.budget_s
        return await self._within(until, lambda: self._engine.condense(call.messages, call.model))

    async def _within(self, until: float, work: Callable[[], T], generator: Generator | None = None) -> T:
        """What `work` returns in a thread; given up at `until`, or when the caller is cancelled."""
        running = self._threads.submit(work)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(running), max(0.0, until - time.monotonic()))
        except TimeoutError:
            raise DeadlineError("the answer was not finished in time: ask for a shorter one, or allow more") from None
        finally:
            if generator is not None and not running.done():
                generator.cancel()
                # A stream that was about to begin forgets a cancellation that came before: once more when it has.
                running.add_done_callback(lambda _: generator.cancel())
