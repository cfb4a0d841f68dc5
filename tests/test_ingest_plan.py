"""Planning an ingest run: no gap, no overlap, the same on every machine."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.corpus.sources import SourceFile
from ray_jobs.ingest.build import shard_rows
from ray_jobs.ingest.plan import (
    SMALLEST_GROUP,
    listing_hashes,
    partition_of,
    plan_shards,
    plan_sources,
    shard_count,
)
from ray_jobs.ingest.receipts import EmbeddedGroup


def source_file(name: str, size: int, modified: str = "1") -> SourceFile:
    return SourceFile("folder", f"/folder/{name}", name, size, modified, "txt")


def embedded(number: int, rows: int) -> EmbeddedGroup:
    return EmbeddedGroup(
        group=number,
        rows_key=f"r{number}",
        vectors_key=f"v{number}",
        ledger_key="l",
        dead_letters=None,
        rows=rows,
        bytes=rows,
        indexed=0,
        empty=0,
        duplicates=0,
        replaced=0,
        failed=0,
        forward_seconds=0,
        seconds=0,
    )


@given(sizes=st.lists(st.integers(0, 3_000_000), min_size=1, max_size=60), bound=st.integers(1 << 12, 1 << 22))
def test_every_file_is_in_one_group_in_order(sizes: list[int], bound: int) -> None:
    files = [source_file(f"{n:03d}", size) for n, size in enumerate(sizes)]
    plan = plan_sources(files, bound)
    assert [part.file for group in plan.groups for part in group] == files
    assert (plan.files, plan.bytes) == (len(files), sum(sizes))
    for group in plan.groups:
        assert len(group) == 1 or sum(part.size for part in group) <= max(bound, SMALLEST_GROUP)


def test_little_work_is_still_divided_so_that_it_spreads() -> None:
    plan = plan_sources([source_file(f"{n:03d}", 100_000) for n in range(100)], 4 << 20)
    assert len(plan.groups) >= 32


@given(
    documents=st.lists(st.lists(st.integers(1, 5), max_size=8), min_size=1, max_size=12),
    shards=st.integers(1, 9),
)
def test_shards_hold_every_document_once_and_whole(documents: list[list[int]], shards: int) -> None:
    """`documents` are the chunks of each document of each group."""
    ordinals = [np.concatenate([np.arange(n) for n in group] or [np.empty(0)]).astype(np.int32) for group in documents]
    groups = [embedded(number, len(rows)) for number, rows in enumerate(ordinals)]
    plans = plan_shards(groups, shards)
    assert (plans[0].start, plans[-1].end) == (0, sum(group.rows for group in groups))
    assert all(one.end == other.start for one, other in pairwise(plans))
    taken: list[tuple[str, int]] = []
    for plan in plans:
        for item in plan.groups:
            group = int(item.rows_key[1:])
            first, last = shard_rows(ordinals[group], item.first_row, plan.start, plan.end)
            if first < last:
                assert ordinals[group][first] == 0
                assert last == len(ordinals[group]) or ordinals[group][last] == 0
            taken += [(item.rows_key, row) for row in range(first, last)]
    assert taken == [(f"r{group}", row) for group, rows in enumerate(ordinals) for row in range(len(rows))]


@given(
    wished=st.none() | st.integers(1, 50),
    rows=st.integers(1, 1000),
    size=st.integers(1, 10**6),
    bound=st.integers(1, 10**6),
)
def test_the_bound_on_bytes_wins_over_the_wish(wished: int | None, rows: int, size: int, bound: int) -> None:
    count = shard_count(wished, rows, size, bound)
    assert 1 <= count <= rows
    assert count == rows or (count >= (wished or 1) and size / count <= bound)


def test_a_listing_hash_changes_with_any_file_and_with_nothing_else() -> None:
    files = [source_file("a", 1), source_file("b", 2)]
    (before,) = listing_hashes(files).values()
    assert listing_hashes(list(files)) == {"folder": before}
    changed = ([source_file("a", 1)], [*files, source_file("c", 3)], [source_file("a", 1), source_file("b", 3)])
    for other in (*changed, [source_file("a", 1, "2"), source_file("b", 2)]):
        assert listing_hashes(other) != {"folder": before}


@pytest.mark.parametrize(("doc_id", "partition"), [("a", 35), ("docs/guide.md", 50), ("文档", 79)])
def test_the_hash_partition_of_an_id_never_changes(doc_id: str, partition: int) -> None:
    assert partition_of(doc_id, 97) == partition
