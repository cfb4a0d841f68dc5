"""The rows that are drawn from a set to measure on."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.train.evaluation import sets
from ray_jobs.train.evaluation.scores import chosen_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sets")


@given(
    count=st.integers(1, 40),
    limit=st.none() | st.integers(1, 50),
    group=st.integers(1, 50),
    batch=st.integers(1, 50),
    seed=st.integers(0, 9),
)
def test_the_rows_that_were_drawn_are_read_however_the_file_is_cut(
    folder: Path, count: int, limit: int | None, group: int, batch: int, seed: int
) -> None:
    rows = [{"prompt": f"p{n}", "completion": [f"c{n}"] * (n % 3), "more": n} for n in range(count)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet", row_group_size=group)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sets, "_ROWS", batch)
        found = sets.read_columns(folder / "rows.parquet", "completion", limit, seed)
    drawn = [rows[place] for place in chosen_rows(count, limit, seed)]
    assert found == {name: [row[name] for row in drawn] for name in ("prompt", "completion")}
