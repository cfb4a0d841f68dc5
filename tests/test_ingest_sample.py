"""Vectors drawn at random from all groups, for training."""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from receipts import embedded

from ray_jobs.ingest.build import sample_vectors
from ray_jobs.storage import LocalStorage


def drawn(sizes: list[int], count: int, seed: int) -> list[int]:
    """The numbers of the rows that were drawn; a vector is the number of its row."""
    with tempfile.TemporaryDirectory() as folder:
        storage = LocalStorage(Path(folder))
        groups = [embedded(number, rows) for number, rows in enumerate(sizes)]
        starts = np.r_[0, np.cumsum(sizes)]
        for group, start in zip(groups, starts.tolist(), strict=False):
            rows = np.arange(start, start + group.rows).astype(np.float16)
            storage.create(group.vectors_key, np.stack([rows, -rows], axis=1).tobytes())
        sample = sample_vectors(storage, groups, count, 2, Path(folder) / "sample.f16", seed)
        assert (sample[:, 0] == -sample[:, 1]).all()
        return [int(value) for value in sample[:, 0]]


@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any), count=st.integers(1, 200))
def test_as_many_different_rows_are_drawn_as_were_asked_for(sizes: list[int], count: int) -> None:
    rows = drawn(sizes, count, seed=0)
    assert len(set(rows)) == len(rows) == min(count, sum(sizes))
    assert rows == sorted(rows)
    assert rows == drawn(sizes, count, seed=0)


def test_each_row_is_equally_likely() -> None:
    times = np.zeros(60)
    for seed in range(200):
        times[drawn([5, 0, 40, 15], 12, seed)] += 1
    # 40 each, with a standard deviation of 5.7: six of them.
    assert times.sum() == 200 * 12
    assert abs(times - 40).max() < 34


def test_of_more_rows_than_numpy_can_count_it_is_nearly_so() -> None:
    with patch("ray_jobs.ingest.build._HYPERGEOMETRIC", 1_000):
        rows = drawn([900, 300, 800], 100, seed=1)
    assert len(set(rows)) == len(rows) <= 100
    assert len(rows) >= 95
