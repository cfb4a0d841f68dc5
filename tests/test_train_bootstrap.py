"""The paired bootstrap: what holds for any scores, and how often the truth lies in the interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.errors import UsageError
from ray_jobs.train.evaluation.bootstrap import Average, change
from ray_jobs.train.evaluation.scores import Scores, chosen_rows, table_row

SCORES = st.floats(0, 8, allow_nan=False)
ROWS = st.lists(st.tuples(SCORES, SCORES, st.integers(1, 50)), min_size=1, max_size=40)
AVERAGES = st.sampled_from(["mean", "perplexity"])


def columns(rows: list[tuple[float, float, int]]) -> tuple[Any, Any, Any]:
    before, after, weights = np.array(rows, dtype=float).T
    return before, after, weights


@given(ROWS, AVERAGES)
def test_equal_scores_change_by_exactly_nothing(rows: list[tuple[float, float, int]], average: Average) -> None:
    before, _, weights = columns(rows)
    found = change(before, before.copy(), weights, average=average, draws=100)
    assert (found.delta, found.low, found.high) == (0.0, 0.0, 0.0)


def test_a_perplexity_without_bound_is_told_and_not_written_down() -> None:
    with pytest.raises(UsageError, match=r"perplexity is 1 before and inf after: the model has diverged; lower"):
        change(np.zeros(3), np.full(3, 800.0), average="perplexity", draws=10)


@given(ROWS, AVERAGES)
def test_the_interval_holds_the_difference_of_the_sample(
    rows: list[tuple[float, float, int]], average: Average
) -> None:
    found = change(*columns(rows), average=average, draws=100)
    assert found.low <= found.delta <= found.high
    assert found.delta == found.after - found.before


@given(ROWS, st.randoms(use_true_random=False), AVERAGES)
def test_the_order_of_rows_does_not_matter(rows: list[tuple[float, float, int]], chance: Any, average: Average) -> None:
    mixed = list(rows)
    chance.shuffle(mixed)
    assert change(*columns(rows), average=average, draws=100) == change(*columns(mixed), average=average, draws=100)


def test_perplexity_is_of_tokens_not_of_rows() -> None:
    found = change(np.array([1.0, 3.0]), np.array([0.5, 2.0]), np.array([30.0, 10.0]), average="perplexity")
    assert found.before == pytest.approx(np.exp((30 * 1 + 10 * 3) / 40))
    assert found.delta == pytest.approx(np.exp((30 * 0.5 + 10 * 2) / 40) - np.exp(1.5))


def test_what_is_hard_about_a_row_cancels_out() -> None:
    chance = np.random.default_rng(0)
    hard = chance.normal(0, 10, 200)
    found = change(hard, hard + 0.1 + chance.normal(0, 0.01, 200))
    assert 0.095 < found.low < found.high < 0.105


def test_the_truth_lies_in_the_interval_about_as_often_as_it_says() -> None:
    chance = np.random.default_rng(1)
    held = 0
    for seed in range(300):
        before = chance.normal(0, 1, 80)
        found = change(before, before + chance.normal(0.3, 1, 80), draws=300, seed=seed)
        held += found.low <= 0.3 <= found.high
    assert 0.90 <= held / 300 <= 0.98


def test_many_rows_are_drawn_in_pieces_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(2).random((2, 500))
    whole = change(*scores, draws=200)
    monkeypatch.setattr("ray_jobs.train.evaluation.bootstrap._CELLS", 1000)
    found = change(*scores, draws=200)
    assert (found.delta, found.low, found.high) == pytest.approx((whole.delta, whole.low, whole.high), rel=1e-9)


@pytest.mark.parametrize(
    ("before", "after", "weights"),
    [([], [], None), ([1.0], [1.0, 2.0], None), ([np.nan], [1.0], None), ([1.0], [1.0], [0.0])],
)
def test_scores_that_tell_nothing_are_refused(before: Any, after: Any, weights: Any) -> None:
    with pytest.raises(UsageError, match=r"expected"):
        change(np.array(before), np.array(after), None if weights is None else np.array(weights))


def test_a_row_of_the_table_has_what_reports_read() -> None:
    row = table_row("test", "target", Scores("f1", np.array([0.0, 1.0]), np.array([1.0, 1.0])), 100, 0)
    assert list(row) == ["set", "role", "metric", "before", "after", "delta", "low", "high", "rows"]
    assert (row["before"], row["after"], row["delta"], row["rows"]) == (0.5, 1.0, 0.5, 2)


@given(st.integers(1, 60), st.one_of(st.none(), st.integers(1, 80)), st.integers(0, 5))
def test_the_rows_to_measure_are_distinct_and_as_many_as_asked(count: int, limit: int | None, seed: int) -> None:
    found = chosen_rows(count, limit, seed)
    assert len(set(found)) == len(found) == min(count, limit or count)
    assert found == sorted(found) == chosen_rows(count, limit, seed)
    assert set(found) <= set(range(count))
