from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.models.batching import pad, padded_length, token_budget_batches, windows_by_length

lengths = st.lists(st.integers(0, 300), max_size=200)
budgets = st.integers(1, 4096)
multiples = st.sampled_from([1, 8, 16, 64])


@given(lengths, budgets, multiples)
def test_every_text_is_in_exactly_one_batch(lengths: list[int], budget: int, multiple: int) -> None:
    batches = token_budget_batches(lengths, budget, multiple)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(batches)


@given(lengths, budgets, multiples)
def test_a_batch_of_several_texts_keeps_its_padded_size_within_the_budget(
    lengths: list[int], budget: int, multiple: int
) -> None:
    for batch in token_budget_batches(lengths, budget, multiple):
        width = padded_length(max(lengths[i] for i in batch), multiple)
        assert len(batch) == 1 or len(batch) * width <= budget


@given(lengths, budgets, multiples)
def test_batches_come_longest_first(lengths: list[int], budget: int, multiple: int) -> None:
    order = [lengths[i] for batch in token_budget_batches(lengths, budget, multiple) for i in batch]
    assert order == sorted(lengths, reverse=True)


@given(lengths, budgets, multiples)
def test_a_batch_is_closed_only_when_one_more_text_would_not_fit(
    lengths: list[int], budget: int, multiple: int
) -> None:
    for batch in token_budget_batches(lengths, budget, multiple)[:-1]:
        assert (len(batch) + 1) * padded_length(lengths[batch[0]], multiple) > budget


@given(st.integers(0, 10_000), multiples)
def test_padded_length_is_the_next_positive_multiple(length: int, multiple: int) -> None:
    padded = padded_length(length, multiple)
    assert padded % multiple == 0
    assert max(length, 1) <= padded < max(length, 1) + multiple


@given(st.lists(st.text(max_size=20), max_size=60), st.integers(1, 16))
def test_windows_hold_every_text_once_from_longest_to_shortest(texts: list[str], window: int) -> None:
    windows = list(windows_by_length(texts, window))
    order = [index for part in windows for index in part]
    assert sorted(order) == list(range(len(texts)))
    assert all(1 <= len(part) <= window for part in windows)
    assert [len(texts[i]) for i in order] == sorted(map(len, texts), reverse=True)


@given(st.lists(st.lists(st.integers(1, 9), max_size=12), min_size=1, max_size=6), multiples, st.booleans())
def test_padding_keeps_each_row_under_its_mask(rows: list[list[int]], multiple: int, left: bool) -> None:
    ids, mask = pad([np.array(row, dtype=np.int64) for row in rows], 0, multiple, left)
    assert ids.shape == mask.shape == (len(rows), padded_length(max(map(len, rows)), multiple))
    for row, padded, own in zip(rows, ids, mask, strict=True):
        assert padded[own == 1].tolist() == row
        assert not padded[own == 0].any()
        assert own.tolist() == sorted(own.tolist(), reverse=not left)
