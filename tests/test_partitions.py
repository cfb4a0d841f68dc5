"""Partitions are a pure function of the manifest: every shard once, none empty."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.index.partitions import partitions_of


@given(rows=st.lists(st.integers(1, 1000), min_size=1, max_size=40), wanted=st.integers(1, 50))
def test_every_shard_is_in_one_partition_and_none_is_empty(rows: list[int], wanted: int) -> None:
    manifest: Any = SimpleNamespace(shards=[SimpleNamespace(rows=count) for count in rows])
    parts = partitions_of(manifest, wanted)
    assert [number for part in parts for number in part] == list(range(len(rows)))
    assert len(parts) == min(wanted, len(rows))
    assert all(parts)


def test_equal_shards_are_spread_evenly() -> None:
    manifest: Any = SimpleNamespace(shards=[SimpleNamespace(rows=100)] * 12)
    assert [len(part) for part in partitions_of(manifest, 4)] == [3, 3, 3, 3]
