"""The stages of an ingest run as Ray Data sees them: rows of JSON in, receipts of JSON out.

Guaranteed: what pieces.py says of every piece (a group, a shard, a part of the ledger).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from pydantic import TypeAdapter

from ray_jobs.corpus.apart import Reader
from ray_jobs.corpus.chunking import ChunkingConfig
from ray_jobs.corpus.limits import Limits
from ray_jobs.corpus.metadata import Schema
from ray_jobs.index.manifest import FileRecord, ShardRecord
from ray_jobs.index.shard import Shard
from ray_jobs.ingest import compact
from ray_jobs.ingest.build import ShardBuilder
from ray_jobs.ingest.bury import bury_rows
from ray_jobs.ingest.embed import GroupEmbedder
from ray_jobs.ingest.gone import read_gone
from ray_jobs.ingest.groups import read_parts
from ray_jobs.ingest.ledger import Places, deleted_documents, known_documents, live_documents, publish_partition
from ray_jobs.ingest.overdue import in_time
from ray_jobs.ingest.partition import decide_partition, dropped_of
from ray_jobs.ingest.pieces import Batch, Clock, anew, once, rows_of
from ray_jobs.ingest.receipts import ShardPlan, StagedGroup
from ray_jobs.ingest.select import write_selected
from ray_jobs.ingest.stage import Reading, Stager
from ray_jobs.ingest.work import Place
from ray_jobs.models.embedder import Embedder, EmbedderConfig

SHARDS: TypeAdapter[tuple[ShardRecord, ...]] = TypeAdapter(tuple[ShardRecord, ...])
FILES: TypeAdapter[tuple[FileRecord, ...]] = TypeAdapter(tuple[FileRecord, ...])


def stage(batch: Batch, arguments: tuple[Place, int, Reading]) -> Iterator[Batch]:
    """Rows {number, key, plan, row} to {number, receipt: StagedGroup, found}."""
    place, partitions, reading = arguments
    work = place.open()
    stager = Stager(work.storage, work.index, work.folder, partitions, reading)
    for number, key, plan, row in rows_of(batch, "number", "key", "plan", "row"):

        def make(number: int = number, plan: str = plan, row: int = row) -> str:
            parts = read_parts(work.storage, FileRecord.model_validate_json(plan), row)
            return stager.stage(number, parts, _reader(reading.limits)).model_dump_json()

        yield once(work, "staged", number, key, make)


@lru_cache(maxsize=1)
def _reader(limits: Limits) -> Reader:
    """One for all groups that this process reads: its helper stays warm."""
    return Reader(limits)


def take_over(batch: Batch, arguments: tuple[Place, int, Reading, bytes, FileRecord | None]) -> Iterator[Batch]:
    """Rows {number, key, documents} to {number, receipt: StagedGroup, found}, of the snapshot before."""
    place, partitions, reading, ledger, gone = arguments
    work = place.open()
    stager = Stager(work.storage, work.index, work.folder, partitions, reading)
    for number, key, documents in rows_of(batch, "number", "key", "documents"):

        def make(number: int = number, documents: str = documents) -> str:
            record = FileRecord.model_validate_json(documents)
            left_out = read_gone(work.storage, gone)
            entries = live_documents(work.storage, FILES.validate_json(ledger), record.key, left_out)
            return stager.take_over(number, record, entries).model_dump_json()

        yield once(work, "taken over", number, key, make)


@dataclass(frozen=True)
class Deciding:
    """What is decided on; groups are (number, taken over, key of the ids), in order of precedence."""

    place: Place
    partitions: int
    groups: list[tuple[int, bool, str]]
    ledger: tuple[FileRecord, ...]  # of the snapshot before
    rebuilds: bool  # of the ledger only what is deleted stays
    gone: FileRecord | None = None  # sources, see gone.py
    deleted_keys: tuple[str, ...] = ()


def decide(batch: Batch, arguments: tuple[Deciding]) -> Iterator[Batch]:
    """Rows {number} to {number, receipt: DecidedPartition, found}."""
    (on,) = arguments
    work = on.place.open()
    for (number,) in rows_of(batch, "number"):

        def make(number: int = number) -> str:
            if on.rebuilds:
                known = deleted_documents(work.storage, on.ledger, number, on.partitions)
            else:
                known = known_documents(work.storage, on.ledger[number])
            gone = read_gone(work.storage, on.gone)
            decided = decide_partition(work.storage, work.folder, number, on.groups, known, gone, on.deleted_keys)
            return decided.model_dump_json()

        yield anew(work, "decided", number, make)


def select(batch: Batch, arguments: tuple[Place, int, Schema, str]) -> Iterator[Batch]:
    """Rows {number, record} to {number, receipt: key of the ids that a filter lets through, found}."""
    place, dimension, schema, where = arguments
    work = place.open()
    for number, record in rows_of(batch, "number", "record"):

        def make(number: int = number, record: str = record) -> str:
            shard = Shard.open(work.storage, ShardRecord.model_validate_json(record), number, dimension)
            return write_selected(work.storage, work.folder, shard, where, schema)

        yield anew(work, "selected", number, make)


class Embed:
    """Rows {number, key, staged, dropped} to {number, receipt: EmbeddedGroup, found}; `dropped` are keys, as JSON."""

    def __init__(
        self, place: Place, partitions: int, embedder: EmbedderConfig, chunking: ChunkingConfig, schema: Schema
    ) -> None:
        self._work = place.open()
        self._partitions = partitions
        self._config = (embedder, chunking, schema)

    @cached_property
    def _groups(self) -> GroupEmbedder:
        # Not in the constructor: of an error there, Ray brings the driver no more than its text; and a model is not
        # loaded for groups that are finished.
        embedder, chunking, schema = self._config
        work = self._work
        loaded = Embedder.load(embedder, work.storage)
        return GroupEmbedder(work.storage, work.index, work.folder, self._partitions, loaded, chunking, schema)

    def __call__(self, batch: Batch) -> Iterator[Batch]:
        """Embed the groups of a batch, one ahead of the other."""
        missing = []
        for number, key, staged, dropped in rows_of(batch, "number", "key", "staged", "dropped"):
            clock = Clock()
            receipt = self._work.find("embedded", key)
            if receipt is None:
                missing.append((number, key, staged, dropped))
            else:
                yield clock.row(number, receipt, found=True)
        if not missing:
            return
        clock = Clock()
        receipts = self._embed([(number, staged, dropped) for number, _, staged, dropped in missing])
        for number, key, *_ in missing:
            with in_time(self._work, "embedded", key):
                made = next(receipts)
            yield clock.row(number, self._work.keep("embedded", key, made), found=False)
            clock = Clock()

    def _embed(self, items: Sequence[tuple[int, str, str]]) -> Iterator[str]:
        groups = (
            (StagedGroup.model_validate_json(staged), dropped_of(self._work.storage, json.loads(dropped), number))
            for number, staged, dropped in items
        )
        for made in self._groups.embed_all(groups):
            yield made.model_dump_json()


def build(batch: Batch, arguments: tuple[Place, FileRecord, Schema, int, str]) -> Iterator[Batch]:
    """Rows {number, key, plan} to {number, receipt: ShardReceipt, found}."""
    place, template, schema, dimension, language = arguments
    work = place.open()
    builder = ShardBuilder(work.storage, work.index, template, schema, dimension, language)
    for number, key, plan in rows_of(batch, "number", "key", "plan"):

        def make(plan: str = plan) -> str:
            return builder.build(ShardPlan.model_validate_json(plan)).model_dump_json()

        yield once(work, "built", number, key, make)


def bury(batch: Batch, arguments: tuple[Place, list[str]]) -> Iterator[Batch]:
    """Rows {number, key, record} to {number, receipt: BuriedShard, found}."""
    place, dead_keys = arguments
    work = place.open()
    for number, key, record in rows_of(batch, "number", "key", "record"):

        def make(number: int = number, record: str = record) -> str:
            shard = ShardRecord.model_validate_json(record)
            return bury_rows(work.storage, work.index, number, shard, dead_keys).model_dump_json()

        yield once(work, "buried", number, key, make)


def rewrite(batch: Batch, arguments: tuple[Place, FileRecord, Schema]) -> Iterator[Batch]:
    """Rows {number, key, records} to {number, receipt: Rewritten, found}."""
    place, template, schema = arguments
    work = place.open()
    for number, key, records in rows_of(batch, "number", "key", "records"):

        def make(number: int = number, records: str = records) -> str:
            shards = SHARDS.validate_json(records)
            return compact.rewrite(work.storage, work.index, number, shards, template, schema).model_dump_json()

        yield once(work, "rewritten", number, key, make)


def move(batch: Batch, arguments: tuple[Place, list[compact.Move]]) -> Iterator[Batch]:
    """Rows {number, key, ledger} to {number, receipt: MovedPartition, found}."""
    place, moves = arguments
    work = place.open()
    for number, key, ledger in rows_of(batch, "number", "key", "ledger"):

        def make(number: int = number, ledger: str = ledger) -> str:
            record = FileRecord.model_validate_json(ledger)
            return compact.move_partition(work.storage, work.index, number, record, moves).model_dump_json()

        yield once(work, "moved", number, key, make)


def ledger(batch: Batch, arguments: tuple[Place, Places]) -> Iterator[Batch]:
    """Rows {number, key, kept} to {number, receipt: FileRecord, found}; the number is that of a hash partition."""
    place, places = arguments
    work = place.open()
    for number, key, kept in rows_of(batch, "number", "key", "kept"):

        def make(number: int = number, kept: str = kept) -> str:
            return publish_partition(work.storage, kept, places, number, work.index).model_dump_json()

        yield once(work, "ledger", number, key, make)
