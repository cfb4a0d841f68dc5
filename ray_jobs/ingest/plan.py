"""Planning: from listed sources to groups, from embedded groups to shards. Pure but for reading Parquet footers.

Guaranteed: every part of every source is in one group; shard ranges cover all rows without gap or overlap; the same
inputs give the same plan on any cluster. Not guaranteed: shards of equal size, since a document is never divided.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ray_jobs.corpus.planning import pack
from ray_jobs.corpus.readers import parts_of
from ray_jobs.ingest.changes import Changes
from ray_jobs.ingest.groups import Groups
from ray_jobs.ingest.receipts import EmbeddedGroup, GroupSlice, ShardPlan

MIN_GROUPS = 32  # below which groups are made smaller, so that work spreads and progress shows
MAX_GROUPS = 20_000
SMALLEST_GROUP = 256 << 10
IDS_A_PARTITION = 100_000
BYTES_A_DOCUMENT = 1 << 10  # assumed when the number of hash partitions is fixed, before anything is read
MAX_PARTITIONS = 1_024  # beyond, partitions grow: each is a part of every group's file of ids


@dataclass(frozen=True)
class SourcePlan:
    """What a run reads."""

    changes: Changes
    groups: Groups

    @property
    def files(self) -> int:
        """Files that were listed."""
        return self.changes.files

    @property
    def bytes(self) -> int:
        """To be read."""
        return self.changes.bytes


def plan_sources(changes: Changes, group_bytes: int) -> SourcePlan:
    """Divide the files to read into groups of at most `group_bytes`.

    Smaller ones where there is little to read, and larger ones where there would be more than about MAX_GROUPS, since
    what is known of a group is held by the driver.
    """
    # Powers of two where they follow from the total: a file more does not move the borders of all groups.
    little = 1 << max(changes.bytes // MIN_GROUPS, SMALLEST_GROUP).bit_length() - 1
    much = 1 << (changes.weight // MAX_GROUPS).bit_length()
    bound = max(min(group_bytes, little), much)
    groups = Groups(changes.database)
    groups.add(pack((part for file in changes.to_read() for part in parts_of(file, bound)), bound))
    return SourcePlan(changes, groups)


def partition_count(total_bytes: int) -> int:
    """Hash partitions of document ids, for a corpus of so many bytes; a power of two, so that it rarely changes.

    A worker holds what is known of the ids of one partition: some 100,000, and more in a corpus above 100 GB.
    """
    needed = -(-total_bytes // (BYTES_A_DOCUMENT * IDS_A_PARTITION))
    return min(1 << max(0, needed - 1).bit_length(), MAX_PARTITIONS)


def partition_of(doc_id: str, partitions: int) -> int:
    """The hash partition of a document id; the same on every machine."""
    digest = hashlib.blake2b(doc_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % partitions


def shard_count(wished: int | None, rows: int, total_bytes: int, shard_bytes: int) -> int:
    """How many shards: as wished, more where the bound on bytes asks for it, never more than rows."""
    needed = -(-total_bytes // shard_bytes)
    return max(1, min(max(wished or 1, needed), rows))


def plan_shards(groups: Sequence[EmbeddedGroup], shards: int) -> list[ShardPlan]:
    """Divide the rows of `groups`, in their order, into `shards` ranges of equal length."""
    starts = _starts(group.rows for group in groups)
    total = starts[-1]
    bounds = [total * number // shards for number in range(shards + 1)]
    return [
        ShardPlan(number=number, start=start, end=end, groups=tuple(_overlapping(groups, starts, start, end)))
        for number, (start, end) in enumerate(pairwise(bounds))
    ]


def _overlapping(groups: Sequence[EmbeddedGroup], starts: Sequence[int], start: int, end: int) -> Iterator[GroupSlice]:
    for group, first in zip(groups, starts, strict=False):
        if group.rows and first < end and first + group.rows > start:
            yield GroupSlice(rows_key=group.rows_key, vectors_key=group.vectors_key, first_row=first, rows=group.rows)


def _starts(sizes: Iterable[int]) -> list[int]:
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + size)
    return starts
