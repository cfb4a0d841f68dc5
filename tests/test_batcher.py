"""Micro-batches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.batcher import Batcher


class Work:
    """Doubles numbers, when it is let to."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.running = 0
        self.most = 0
        self.go = asyncio.Event()

    async def __call__(self, calls: list[int]) -> Sequence[int]:
        self.batches.append(calls)
        self.running += 1
        self.most = max(self.most, self.running)
        await self.go.wait()
        self.running -= 1
        return [2 * call for call in calls]


@settings(deadline=None)
@given(
    calls=st.lists(st.integers(1, 9), min_size=1, max_size=40),
    budget=st.integers(1, 20),
    concurrent=st.integers(1, 3),
)
def test_every_caller_gets_its_own_result_from_bounded_batches_in_order(
    calls: list[int], budget: int, concurrent: int
) -> None:
    async def run() -> Work:
        work = Work()
        batcher = Batcher(work, budget, concurrent, weigh=lambda call: call)
        asked = [asyncio.create_task(batcher(call)) for call in calls]
        await asyncio.sleep(0)
        work.go.set()
        assert await asyncio.gather(*asked) == [2 * call for call in calls]
        return work

    work = asyncio.run(run())
    assert [call for batch in work.batches for call in batch] == calls
    assert all(sum(batch) <= budget or len(batch) == 1 for batch in work.batches)
    assert work.most <= concurrent


def test_what_waits_while_a_batch_runs_goes_together() -> None:
    async def run() -> list[list[int]]:
        work = Work()
        batcher = Batcher(work, 100)
        asked = [asyncio.create_task(batcher(call)) for call in range(10)]
        await asyncio.sleep(0)
        work.go.set()
        await asyncio.gather(*asked)
        return work.batches

    assert asyncio.run(run()) == [[0], list(range(1, 10))]


def test_a_caller_that_has_gone_is_left_out() -> None:
    async def run() -> list[list[int]]:
        work = Work()
        batcher = Batcher(work, 100)
        asked = [asyncio.create_task(batcher(call)) for call in range(4)]
        await asyncio.sleep(0)
        asked[2].cancel()
        await asyncio.sleep(0)
        work.go.set()
        await asyncio.gather(*asked, return_exceptions=True)
        return work.batches

    assert asyncio.run(run()) == [[0], [1, 3]]


def test_a_failure_reaches_every_caller_of_its_batch_and_nobody_else() -> None:
    async def run() -> list[object]:
        async def work(calls: list[int]) -> list[int]:
            if 1 in calls:
                raise RuntimeError("broken")
            return calls

        batcher = Batcher(work, 2)
        return await asyncio.gather(*(batcher(call) for call in range(5)), return_exceptions=True)

    first, second, third, fourth, fifth = asyncio.run(run())
    assert first == 0
    assert isinstance(second, RuntimeError)
    assert isinstance(third, RuntimeError)
    assert (fourth, fifth) == (3, 4)


def test_too_few_results_are_an_error_and_nobody_waits_for_ever() -> None:
    async def run() -> None:
        async def work(calls: list[int]) -> list[int]:
            return []

        await asyncio.wait_for(Batcher(work, 2)(1), 5)

    with pytest.raises(ValueError, match="zip"):
        asyncio.run(run())
