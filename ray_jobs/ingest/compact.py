"""Compaction: shards with many dead rows, and small ones, are written anew as fewer and full ones.

Guaranteed: the answers of every mode stay what they are (those of a graph, HNSW, but for its own approximation): the
same rows, vectors and counts on the same template; readers go on with the snapshot before; a run that is killed goes on
with the shards that it has finished. Not guaranteed: that the text of dead documents is gone from the store: it stays
in objects that hold live ones, too, and in older snapshots.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from ray_jobs.corpus.metadata import Schema
from ray_jobs.index import layout
from ray_jobs.index.deleted import live_rows
from ray_jobs.index.manifest import FileRecord, MadeBy, Manifest, ShardRecord
from ray_jobs.index.shard import Shard, publish_shard, rewrite_shard
from ray_jobs.ingest.ledger import DELETED, known_documents, publish_entries, with_columns
from ray_jobs.storage import Storage, new_id


class Rewritten(BaseModel):
    """A new shard in the place of some."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int  # of the plan
    record: ShardRecord


class MovedPartition(BaseModel):
    """One partition of the ledger, and how many live documents each object holds that it names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    record: FileRecord
    documents: dict[str, int]


@dataclass(frozen=True)
class Move:
    """Where the live rows of a shard lie now: in shard `id`, the first of them at row `start`."""

    source: ShardRecord
    id: str
    start: int


def plan(shards: Sequence[ShardRecord], max_dead: float, shard_bytes: int) -> list[tuple[int, ...]]:
    """Which shards, by position, become one new shard each.

    A shard is written anew where its share of dead rows is above `max_dead`, or where it and another such one are less
    than half full; neighbours are put together up to `shard_bytes` of live text and vectors. One small shard by itself
    stays, and so does an order in which all are full.
    """
    sizes = [_live_bytes(record) for record in shards]
    wanted = [
        number
        for number, record in enumerate(shards)
        if record.dead_rows > max_dead * record.rows or sizes[number] < shard_bytes / 2
    ]
    groups: list[list[int]] = []
    for number in wanted:
        if groups and sum(sizes[n] for n in groups[-1]) + sizes[number] <= shard_bytes:
            groups[-1].append(number)
        else:
            groups.append([number])
    return [
        tuple(group)
        for group in groups
        if len(group) > 1 or shards[group[0]].dead_rows > max_dead * shards[group[0]].rows
    ]


def _live_bytes(record: ShardRecord) -> float:
    size = record.files[layout.ROWS].size + record.files[layout.VECTORS_F16].size
    return size * (record.rows - record.dead_rows) / max(1, record.rows)


def rewrite(
    storage: Storage, index: str, number: int, records: Sequence[ShardRecord], template: FileRecord, schema: Schema
) -> Rewritten:
    """Write the live rows of some shards as one, and publish its files."""
    dimension = _dimension(records)
    shards = [Shard.open(storage, record, place, dimension) for place, record in enumerate(records)]
    with storage.scratch() as folder:
        parts = [(shard, shard.live_rows.astype(np.int64)) for shard in shards]
        built = rewrite_shard(folder / "shard", parts, storage.local(template.key, template.sha256), schema)
        return Rewritten(number=number, record=publish_shard(storage, index, new_id(), built))


def moves_of(plans: Sequence[Sequence[ShardRecord]], rewritten: Sequence[Rewritten]) -> list[Move]:
    """Where the rows of each shard that was written anew have come to lie."""
    moves = []
    for records, made in zip(plans, rewritten, strict=True):
        starts = accumulate((record.rows - record.dead_rows for record in records), initial=0)
        moves += [Move(record, made.record.id, start) for record, start in zip(records, starts, strict=False)]
    return moves


def move_partition(
    storage: Storage, index: str, partition: int, ledger: FileRecord, moves: Sequence[Move]
) -> MovedPartition:
    """One partition of the ledger with its documents where they lie now."""
    known = known_documents(storage, ledger)
    shard = np.array(known.column("shard").to_pylist(), object)
    first_row = known.column("first_row").to_numpy().copy()
    moved = shard.copy()
    for move in moves:
        own = shard == move.source.id
        if own.any():
            first_row[own] = move.start + _ranks(storage, move.source)[first_row[own]]
            moved[own] = move.id
    known = with_columns(known, {"shard": pa.array(moved, pa.string()), "first_row": pa.array(first_row, pa.int64())})
    live = known.filter(pa.compute.not_equal(known.column("status"), DELETED))
    record = publish_entries(storage, index, partition, known)
    return MovedPartition(record=record, documents=dict(Counter(live.column("documents_key").to_pylist())))


def compacted(
    before: Manifest,
    plans: Sequence[tuple[int, ...]],
    rewritten: Sequence[Rewritten],
    moved: Sequence[MovedPartition],
    job_id: str,
) -> Manifest:
    """The manifest with the new shards in the place of the first of those that each is made of."""
    place = {group[0]: made.record for group, made in zip(plans, rewritten, strict=True)}
    gone = {number for group in plans for number in group}
    shards = [place.get(n, record) for n, record in enumerate(before.shards) if n in place or n not in gone]
    named = {key for part in moved for key in part.documents}
    return before.model_copy(
        update={
            "number": before.number + 1,
            "parent": before.number,
            "shards": tuple(record for record in shards if record.rows),
            "ledger": tuple(part.record for part in moved),
            "documents": tuple(record for record in before.documents if record.key in named),
            "sketches": tuple(record for record in before.sketches if record.documents in named),
            "made_by": MadeBy.now(job_id, before.made_by.config_hash),
        }
    )


def digest_of(records: Sequence[ShardRecord], template: FileRecord, schema: Schema) -> tuple[str, ...]:
    """All that a new shard depends on."""
    return (*(record.model_dump_json() for record in records), template.sha256, json.dumps(sorted(schema.items())))


def _ranks(storage: Storage, record: ShardRecord) -> npt.NDArray[np.int64]:
    """How many live rows there are before each row, (rows,)."""
    live = live_rows(storage, record)
    return np.arange(record.rows) if live is None else np.cumsum(live) - live


def _dimension(records: Sequence[ShardRecord]) -> int:
    record = next(record for record in records if record.rows)
    return record.files[layout.VECTORS_F16].size // (2 * record.rows)
