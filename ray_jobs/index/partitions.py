"""Which shards are searched together: a pure function of the manifest and of how many partitions are wanted.

Guaranteed: every shard is in exactly one partition, partitions are runs of consecutive shards, none is empty, and the
same manifest gives the same partitions on every host. Not guaranteed: equal sizes; a shard is never divided.
"""

from __future__ import annotations

from ray_jobs.index.manifest import Manifest


def partitions_of(manifest: Manifest, wanted: int) -> list[tuple[int, ...]]:
    """The shard numbers of each of at most `wanted` partitions, balanced by rows."""
    shards = manifest.shards
    count = max(1, min(wanted, len(shards)))
    total = sum(shard.rows for shard in shards)
    parts: list[list[int]] = [[] for _ in range(count)]
    before = 0
    for number, shard in enumerate(shards):
        middle = before + shard.rows / 2
        fitting = int(middle * count / total) if total else 0
        # A partition never starts before the one ahead of it has a shard, nor so late that later ones stay empty.
        started = sum(bool(part) for part in parts)
        latest = count - (len(shards) - number)
        position = max(min(fitting, started), latest, started - 1, 0)
        parts[position].append(number)
        before += shard.rows
    return [tuple(part) for part in parts if part]
