"""Micro-batches: whatever waits when a worker is free goes together; nobody waits for a batch to fill.

Ray Serve's own decorator closes a batch before it knows that a worker is free, so that without a waiting time every
request is a batch of one, however many wait; with one, every request waits for it.

Guaranteed: at most `concurrent` batches at a time, each of at most `budget` in weight (a heavier call goes alone), in
order of arrival; a caller that has gone is left out, and ends nobody else's work. Not guaranteed: fairness beyond
that order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from serve.tracing import detached

C = TypeVar("C")
R = TypeVar("R")


def one(call: object) -> int:
    """The weight of a call where only their number counts."""
    return 1


class Batcher(Generic[C, R]):
    """Calls `work` with lists of what single callers ask for, and gives each caller its own result."""

    def __init__(
        self,
        work: Callable[[list[C]], Awaitable[Sequence[R]]],
        budget: int,
        concurrent: int = 1,
        weigh: Callable[[C], int] = one,
    ) -> None:
        self._work = work
        self._budget = budget
        self._concurrent = concurrent
        self._weigh = weigh
        self._waiting: deque[tuple[C, asyncio.Future[R]]] = deque()
        self._running: set[asyncio.Task[None]] = set()

    async def __call__(self, call: C) -> R:
        """The result for `call`; raises what `work` raised for its batch."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, future))
        self._start()
        return await future

    def _start(self) -> None:
        while self._waiting and len(self._running) < self._concurrent:
            batch = self._take()
            if batch:
                # A batch is nobody's: it must not end with the request that happened to start it.
                task = asyncio.create_task(self._run(batch), context=detached())
                self._running.add(task)
                task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._start()

    def _take(self) -> list[tuple[C, asyncio.Future[R]]]:
        batch: list[tuple[C, asyncio.Future[R]]] = []
        weight = 0
        while self._waiting:
            call, future = self._waiting[0]
            weight += self._weigh(call)
            if batch and weight > self._budget:
                break
            self._waiting.popleft()
            if future.done():
                weight -= self._weigh(call)
            else:
                batch.append((call, future))
        return batch

    async def _run(self, batch: list[tuple[C, asyncio.Future[R]]]) -> None:
        try:
            results = await self._work([call for call, _ in batch])
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
