"""The arithmetic of batches, by its invariants."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.errors import UsageError
from ray_jobs.train import batches

SIZES = st.integers(1, 512)
WORKERS = st.integers(1, 16)


@given(SIZES, SIZES, WORKERS)
def test_a_plan_makes_up_the_global_batch_or_is_refused(size: int, micro: int, workers: int) -> None:
    if size % (micro * workers) == 0:
        assert batches.plan(size, micro, workers).global_batch == size
        return
    with pytest.raises(UsageError, match=rf"optimisation.global_batch={size} is not divided .* x {workers} workers"):
        batches.plan(size, micro, workers)


@given(st.integers(1, 12), st.integers(1, 8), st.integers(1, 6), st.integers(0, 3))
def test_a_step_has_the_same_rows_for_any_number_of_workers(share: int, micro: int, workers: int, step: int) -> None:
    def rows_of(plan: batches.Batches) -> set[int]:
        """Micro-batches are dealt out in turn."""
        first = step * plan.accumulation * plan.workers
        dealt = range(first, first + plan.accumulation * plan.workers)
        return {micro * plan.micro_batch + row for micro in dealt for row in range(plan.micro_batch)}

    size = share * micro * workers
    one, many = batches.plan(size, micro, 1), batches.plan(size, micro, workers)
    assert rows_of(one) == rows_of(many) == set(range(step * size, (step + 1) * size))


@given(st.integers(1, 60), st.integers(1, 300), st.integers(0, 5))
def test_an_epoch_has_every_row_once(rows: int, count: int, seed: int) -> None:
    found = batches.order(rows, count, seed).tolist()
    assert len(found) == count
    for start in range(0, count - rows + 1, rows):
        assert sorted(found[start : start + rows]) == list(range(rows))


@given(st.integers(1, 60), st.integers(1, 200), st.integers(1, 100), st.integers(0, 5))
def test_a_longer_run_begins_like_a_shorter_one(rows: int, count: int, more: int, seed: int) -> None:
    short, long = batches.order(rows, count, seed), batches.order(rows, count + more, seed)
    assert long[:count].tolist() == short.tolist()


def test_epochs_are_shuffled_apart() -> None:
    found = batches.order(50, 100, 0).tolist()
    assert found[:50] != found[50:]
    assert found != batches.order(50, 100, 1).tolist()


@pytest.mark.parametrize(
    ("rows", "size", "epochs", "most", "expected"),
    [(64, 8, 1, None, 8), (65, 8, 1, None, 9), (3, 8, 1, None, 1), (64, 8, 2.5, None, 20), (64, 8, 9, 5, 5)],
)
def test_steps_of_a_run(rows: int, size: int, epochs: float, most: int | None, expected: int) -> None:
    assert batches.steps(rows, size, epochs, most) == expected
