"""Rows that share a text stand in different micro-batches, and none is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.train import batches
from ray_jobs.train.apart import PATIENCE, apart

Texts = npt.NDArray[np.int64]


def texts_of(rows: Sequence[Sequence[object]]) -> Texts:
    """Hashes of small texts."""
    return np.array([[hash(text) for text in row] for row in rows], dtype=np.int64)


def micro_batches(found: npt.NDArray[np.int64], size: int) -> list[list[int]]:
    return [found[start : start + size].tolist() for start in range(0, len(found), size)]


def shared(texts: Texts, rows: Sequence[int]) -> set[int]:
    """The texts that stand in two of these rows, whatever the column."""
    counted = Counter(text for row in rows for text in set(texts[row].tolist()))
    return {text for text, count in counted.items() if count > 1}


def most_others(texts: Texts) -> int:
    """With how many others a row shares a text, at most."""
    sets = [set(row) for row in texts.tolist()]
    return max(sum(not one.isdisjoint(other) for other in sets) - 1 for one in sets)


@given(st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=1, max_size=60), st.integers(1, 8))
def test_no_row_is_lost_or_doubled_whatever_the_texts(rows: list[list[int]], micro: int) -> None:
    order = np.arange(len(rows))
    found = apart(order, texts_of(rows), micro)
    assert sorted(found.tolist()) == order.tolist()
    assert found.tolist() == apart(order, texts_of(rows), micro).tolist()


@given(st.integers(0, 1000), st.integers(60, 200), st.integers(2, 4), st.booleans())
def test_no_micro_batch_has_a_text_in_two_rows(seed: int, count: int, micro: int, adjacent: bool) -> None:
    texts = np.random.default_rng(seed).integers(0, 6 * count, (count, 3))
    if adjacent:
        texts = np.sort(texts, axis=0)
    others = most_others(texts)
    parts = micro_batches(apart(np.arange(count), texts, micro), micro)
    if others <= PATIENCE and len(parts) >= 2 + 2 * others:
        assert [part for part in parts if shared(texts, part)] == []


@given(st.permutations(range(48)), st.sampled_from([2, 4, 8]))
def test_rows_of_which_each_has_a_double_never_meet_not_even_in_the_last_micro_batches(
    order: list[int], micro: int
) -> None:
    texts = texts_of([[row % 24] for row in range(48)])
    parts = micro_batches(apart(np.array(order), texts, micro), micro)
    assert all(len({row % 24 for row in part}) == len(part) for part in parts)


@given(st.permutations(range(24)), st.sampled_from([2, 4, 6]))
def test_a_passage_that_is_right_for_one_row_and_a_hard_negative_of_another_never_meets_itself(
    order: list[int], micro: int
) -> None:
    rows = [("q1", "P", "n"), ("q2", "R", "P"), *((f"q{row}", f"p{row}", f"n{row}") for row in range(3, 25))]
    parts = micro_batches(apart(np.array(order), texts_of(rows), micro), micro)
    assert not any({0, 1} <= set(part) for part in parts)


@pytest.mark.parametrize("micro", [2, 8, 32])
def test_the_positives_of_a_query_are_apart_though_they_lie_side_by_side(micro: int) -> None:
    rows = [(f"q{query}", f"p{query}-{n}") for query in range(96) for n in range(3)]
    parts = micro_batches(apart(np.arange(len(rows)), texts_of(rows), micro), micro)
    assert all(len({row // 3 for row in part}) == len(part) for part in parts)


def test_a_text_of_more_rows_than_there_are_micro_batches_costs_no_row_and_no_other_meeting() -> None:
    # 12 rows of one query among 48: 6 micro-batches of 8.
    rows = [("q", f"p{row}") if row < 12 else (f"q{row}", f"p{row // 2}") for row in range(48)]
    texts = texts_of(rows)
    parts = micro_batches(apart(np.arange(48), texts, 8), 8)
    assert sorted(row for part in parts for row in part) == list(range(48))
    assert set().union(*(shared(texts, part) for part in parts)) == {hash("q")}


def test_the_same_rows_of_several_epochs_do_not_meet() -> None:
    order = batches.order(10, 80, 0)
    parts = micro_batches(apart(order, texts_of([(row,) for row in range(10)]), 5), 5)
    assert all(len(set(part)) == 5 for part in parts)


@given(st.integers(0, 50), st.integers(1, 200))
def test_a_longer_run_begins_like_a_shorter_one_but_for_the_last_micro_batches(seed: int, more: int) -> None:
    texts = np.random.default_rng(seed).integers(0, 900, (300, 3))
    short, long = (apart(batches.order(300, count, seed), texts, 2) for count in (300, 300 + more))
    assert short[:100].tolist() == long[:100].tolist()
