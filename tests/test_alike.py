"""Batches of rows of like length."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.train.methods.alike import STRETCH, alike


@given(st.integers(0, 700), st.integers(1, 8), st.integers(0, 3))
def test_every_row_comes_as_often_as_before_and_within_its_stretch(rows: int, batch: int, seed: int) -> None:
    rng = np.random.default_rng(rows)
    indices = rng.integers(0, 100, rows)
    found = alike(indices, rng.integers(1, 400, 100), batch, seed)
    for begin in range(0, rows, STRETCH * batch):
        own = np.s_[begin : begin + STRETCH * batch]
        assert sorted(found[own]) == sorted(indices[own])


def test_little_of_a_batch_is_padding_and_batches_come_in_no_order_of_length() -> None:
    lengths = np.random.default_rng(0).integers(20, 320, 4096)
    batches = lengths[alike(np.arange(4096), lengths, 16, 0)].reshape(-1, 16)
    assert (batches.max(axis=1) - batches.min(axis=1)).mean() < 10
    assert abs(np.corrcoef(np.arange(len(batches)), batches.mean(axis=1))[0, 1]) < 0.2


def test_the_order_is_that_of_its_seed() -> None:
    indices, lengths = np.arange(512), np.arange(512) % 37
    assert alike(indices, lengths, 8, 1).tolist() == alike(indices, lengths, 8, 1).tolist()
    assert alike(indices, lengths, 8, 1).tolist() != alike(indices, lengths, 8, 2).tolist()
