"""Planning an ingest run: no gap, no overlap, the same on every machine."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.corpus.sources import SourceFile
from ray_jobs.index.manifest import FileRecord
from ray_jobs.ingest.build import shard_rows
from ray_jobs.ingest.plan import (
    BYTES_A_DOCUMENT,
    IDS_A_PARTITION,
    SMALLEST_GROUP,
    SourcePlan,
    partition_count,
    partition_of,
    plan_shards,
    plan_sources,
    shard_count,
)
from ray_jobs.ingest.receipts import EmbeddedGroup
from ray_jobs.ingest.seen import SEEN_SCHEMA, compare


def source_file(name: str, size: int, modified: str = "1") -> SourceFile:
    return SourceFile("folder", f"/folder/{name}", name, size, modified, "txt")


def plan_of(files: list[SourceFile], group_bytes: int) -> SourcePlan:
    return plan_sources(compare(files, SEEN_SCHEMA.empty_table()), group_bytes)


def embedded(number: int, rows: int) -> EmbeddedGroup:
    return EmbeddedGroup(
        group=number,
        documents=FileRecord(key="d", size=0, sha256=""),
        rows_key=f"r{number}",
        vectors_key=f"v{number}",
        ledger_key="l",
        dead_letters=None,
        rows=rows,
        bytes=rows,
        indexed=0,
        empty=0,
        filtered={},
        duplicates=0,
        examples=(),
        misfits=0,
        forward_seconds=0,
        seconds=0,
    )


@given(sizes=st.lists(st.integers(0, 3_000_000), min_size=1, max_size=60), bound=st.integers(1 << 12, 1 << 22))
def test_every_file_is_in_one_group_in_order(sizes: list[int], bound: int) -> None:
    files = [source_file(f"{n:03d}", size) for n, size in enumerate(sizes)]
    plan = plan_of(files, bound)
    assert [part.file for group in plan.groups for part in group] == files
    assert (plan.files, plan.bytes) == (len(files), sum(sizes))
    for group in plan.groups:
        assert len(group) == 1 or sum(part.size for part in group) <= max(bound, SMALLEST_GROUP)


def test_little_work_is_still_divided_so_that_it_spreads() -> None:
    plan = plan_of([source_file(f"{n:03d}", 100_000) for n in range(100)], 4 << 20)
    assert len(plan.groups) >= 32


@pytest.mark.parametrize("change", ["come", "gone", "grown"])
def test_a_file_that_comes_goes_or_grows_changes_the_groups_near_it_alone(change: str) -> None:
    chance, shares = random.Random(0), []
    for _ in range(20):
        files = [source_file(f"{n:04d}", chance.randrange(100_000)) for n in range(1000)]
        place = chance.randrange(1000)
        kept = files[:place], files[place + 1 :]
        new = {
            "come": [*kept[0], source_file(f"{place:04d}", 1), source_file(f"{place:04d}-new", 50_000), *kept[1]],
            "gone": [*kept[0], *kept[1]],
            "grown": [*kept[0], source_file(f"{place:04d}", 99_999, "2"), *kept[1]],
        }[change]
        before, after = (set(plan_of(listed, SMALLEST_GROUP).groups) for listed in (files, new))
        shares.append(sum(map(len, after - before)) / len(new))
    assert sum(shares) / len(shares) < 0.02


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


@given(st.integers(0, 1 << 45))
def test_the_number_of_hash_partitions_rarely_changes(total: int) -> None:
    count = partition_count(total)
    assert count.bit_count() == 1
    assert count / 2 < max(1, total / (BYTES_A_DOCUMENT * IDS_A_PARTITION)) <= count or count == 1


@pytest.mark.parametrize(("doc_id", "partition"), [("a", 35), ("docs/guide.md", 50), ("文档", 79)])
def test_the_hash_partition_of_an_id_never_changes(doc_id: str, partition: int) -> None:
    assert partition_of(doc_id, 97) == partition
