"""Planning an ingest run: no gap, no overlap, the same on every machine."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from receipts import embedded

from ray_jobs.corpus.planning import SourcePart
from ray_jobs.corpus.sources import SourceFile
from ray_jobs.ingest.build import shard_rows
from ray_jobs.ingest.changes import compared
from ray_jobs.ingest.groups import read_parts, store_groups
from ray_jobs.ingest.plan import (
    BYTES_A_DOCUMENT,
    IDS_A_PARTITION,
    MAX_PARTITIONS,
    SMALLEST_GROUP,
    SourcePlan,
    partition_count,
    partition_of,
    plan_shards,
    plan_sources,
    shard_count,
)
from ray_jobs.storage import LocalStorage


def source_file(name: str, size: int, modified: str = "1") -> SourceFile:
    return SourceFile("folder", f"/folder/{name}", name, size, modified, "txt")


@contextmanager
def planned(files: Iterable[SourceFile], group_bytes: int) -> Iterator[SourcePlan]:
    with compared(files) as changes:
        yield plan_sources(changes, group_bytes)


def groups_of(files: Iterable[SourceFile], group_bytes: int) -> list[tuple[SourcePart, ...]]:
    with planned(files, group_bytes) as plan:
        return [group.parts for group in plan.groups]


@given(sizes=st.lists(st.integers(0, 3_000_000), min_size=1, max_size=60), bound=st.integers(1 << 12, 1 << 22))
def test_every_file_is_in_one_group_in_order(sizes: list[int], bound: int) -> None:
    files = [source_file(f"{n:03d}", size) for n, size in enumerate(sizes)]
    with planned(files, bound) as plan:
        assert [part.file for group in plan.groups for part in group.parts] == files
        assert (plan.files, plan.bytes) == (len(files), sum(sizes))
        for number, group in enumerate(plan.groups):
            assert plan.groups[number] == group
            assert plan.groups.files(number) == [part.file.doc_id for part in group.parts]
            assert group.size == sum(part.size for part in group.parts)
            assert len(group.parts) == 1 or group.size <= max(bound, SMALLEST_GROUP)
        assert plan.groups.files(len(plan.groups)) == []


def test_little_work_is_still_divided_so_that_it_spreads() -> None:
    assert len(groups_of([source_file(f"{n:03d}", 100_000) for n in range(100)], 4 << 20)) >= 32


@pytest.mark.parametrize("size", [0, 1 << 30])
def test_much_work_is_divided_into_so_many_groups_that_the_driver_can_hold_them(size: int) -> None:
    """Of empty files and of large ones; larger groups are the price."""
    with patch("ray_jobs.ingest.plan.MAX_GROUPS", 100):
        count = len(groups_of((source_file(f"{n:05d}", size) for n in range(10_000)), 4 << 20))
    assert 50 <= count <= 200


def test_groups_come_back_from_the_store(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    files = [source_file(f"{n:04d}", 100_000) for n in range(300)]
    with planned(files, 4 << 20) as plan, patch("ray_jobs.ingest.groups.OBJECT_CHARACTERS", 2_000):
        stored = list(store_groups(storage, "work", plan.groups))
        assert [group for group, _, _ in stored] == list(plan.groups)
    assert len({record.key for _, record, _ in stored}) > 10
    for group, record, place in stored:
        assert read_parts(storage, record, place) == group.parts


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
        before, after = (set(groups_of(listed, SMALLEST_GROUP)) for listed in (files, new))
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
    needed = total / (BYTES_A_DOCUMENT * IDS_A_PARTITION)
    assert count / 2 < max(1, needed) <= count or count == 1 or (count == MAX_PARTITIONS and needed > MAX_PARTITIONS)


@pytest.mark.parametrize(("doc_id", "partition"), [("a", 35), ("docs/guide.md", 50), ("文档", 79)])
def test_the_hash_partition_of_an_id_never_changes(doc_id: str, partition: int) -> None:
    assert partition_of(doc_id, 97) == partition
