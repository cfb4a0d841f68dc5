"""Planning: from listed sources to groups, from embedded groups to shards. Pure but for reading Parquet footers.

Guaranteed: every part of every source is in one group; shard ranges cover all rows without gap or overlap; the same
inputs give the same plan on any cluster. Not guaranteed: shards of equal size, since a document is never divided.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ray_jobs.corpus.planning import SourcePart, pack
from ray_jobs.corpus.readers import parts_of
from ray_jobs.corpus.sources import SourceFile
from ray_jobs.ingest.receipts import EmbeddedGroup, GroupSlice, ShardPlan

MIN_GROUPS = 32  # below which groups are made smaller, so that work spreads and progress shows
SMALLEST_GROUP = 256 << 10
IDS_A_PARTITION = 1_000_000
BYTES_A_DOCUMENT = 1 << 12  # assumed when the number of hash partitions is fixed, before anything is read


@dataclass(frozen=True)
class SourcePlan:
    """What a run reads."""

    files: int
    bytes: int
    groups: tuple[tuple[SourcePart, ...], ...]
    partitions: int  # hash partitions of document ids
    inputs: dict[str, str]  # by SOURCE name: hash of its listing


def plan_sources(files: Sequence[SourceFile], group_bytes: int) -> SourcePlan:
    """Divide listed files into groups of at most `group_bytes`, smaller ones where there is little to read."""
    total = sum(file.size for file in files)
    bound = max(min(group_bytes, total // MIN_GROUPS), min(group_bytes, SMALLEST_GROUP))
    parts = (part for file in files for part in parts_of(file, bound))
    groups = tuple(pack(parts, bound))
    partitions = max(1, -(-total // (BYTES_A_DOCUMENT * IDS_A_PARTITION)))
    return SourcePlan(len(files), total, groups, partitions, listing_hashes(files))


def listing_hashes(files: Iterable[SourceFile]) -> dict[str, str]:
    """One hash a SOURCE name over its files, in the order of the listing."""
    digests: dict[str, hashlib._Hash] = {}
    for file in files:
        digest = digests.setdefault(file.source, hashlib.sha256())
        digest.update(f"{file.relative}\0{file.size}\0{file.modified}\0{file.format}\n".encode())
    return {name: digest.hexdigest() for name, digest in digests.items()}


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
