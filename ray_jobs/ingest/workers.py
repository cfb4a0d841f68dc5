"""The stages of an ingest run as Ray Data sees them: rows of JSON in, receipts of JSON out.

Guaranteed: what pieces.py says of every piece (a group, a shard, a part of the ledger).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
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
from ray_jobs.ingest.partition import decide_partition, dropped_of
from ray_jobs.ingest.pieces import Batch, Clock, once, rows_of
from ray_jobs.ingest.receipts import ShardPlan, StagedGroup
from ray_jobs.ingest.select import write_selected
from ray_jobs.ingest.stage import Reading, Stager
from ray_jobs.ingest.work import Work
from ray_jobs.models.embedder import Embedder, EmbedderConfig
from ray_jobs.storage import open_storage

SHARDS: TypeAdapter[tuple[ShardRecord, ...]] = TypeAdapter(tuple[ShardRecord, ...])
FILES: TypeAdapter[tuple[FileRecord, ...]] = TypeAdapter(tuple[FileRecord, ...])


def stage(batch: Batch, arguments: tuple[str, str, int, int, Reading]) -> Iterator[Batch]:
    """Rows {number, key, plan, place} to {number, receipt: StagedGroup, found}."""
    store, index, parent, partitions, reading = arguments
    storage = open_storage(store)
    work = Work(storage, index, parent)
    stager = Stager(storage, index, work.folder, partitions, reading)
    for number, key, plan, place in rows_of(batch, "number", "key", "plan", "place"):

        def make(number: int = number, plan: str = plan, place: int = place) -> str:
            parts = read_parts(storage, FileRecord.model_validate_json(plan), place)
            return stager.stage(number, parts, _reader(reading.limits)).model_dump_json()

        yield once(work, "staged", number, key, make)


@lru_cache(maxsize=1)
def _reader(limits: Limits) -> Reader:
    """One for all groups that this process reads: its helper stays warm."""
    return Reader(limits)


def take_over(batch: Batch, arguments: tuple[str, str, int, int, Reading, bytes, FileRecord | None]) -> Iterator[Batch]:
    """Rows {number, key, documents} to {number, receipt: StagedGroup, found}, of the snapshot before."""
    store, index, parent, partitions, reading, ledger, gone = arguments
    storage = open_storage(store)
    work = Work(storage, index, parent)
    stager = Stager(storage, index, work.folder, partitions, reading)
    for number, key, documents in rows_of(batch, "number", "key", "documents"):

        def make(number: int = number, documents: str = documents) -> str:
            record = FileRecord.model_validate_json(documents)
            entries = live_documents(storage, FILES.validate_json(ledger), record.key, read_gone(storage, gone))
            return stager.take_over(number, record, entries).model_dump_json()

        yield once(work, "taken over", number, key, make)


@dataclass(frozen=True)
class Deciding:
    """What is decided on; groups are (number, taken over, key of the ids), in order of precedence."""

    store: str
    index: str
    parent: int
    partitions: int
    groups: list[tuple[int, bool, str]]
    ledger: tuple[FileRecord, ...]  # of the snapshot before
    rebuilds: bool  # of the ledger only what is deleted stays
    gone: FileRecord | None = None  # sources, see gone.py
    deleted_keys: tuple[str, ...] = ()


def decide(batch: Batch, arguments: tuple[Deciding]) -> Iterator[Batch]:
    """Rows {number} to {number, receipt: DecidedPartition, found}."""
    (on,) = arguments
    storage = open_storage(on.store)
    folder = Work(storage, on.index, on.parent).folder
    for (number,) in rows_of(batch, "number"):
        clock = Clock()
        if on.rebuilds:
            known = deleted_documents(storage, on.ledger, number, on.partitions)
        else:
            known = known_documents(storage, on.ledger[number])
        gone = read_gone(storage, on.gone)
        decided = decide_partition(storage, folder, number, on.groups, known, gone, on.deleted_keys)
        yield clock.row(number, decided.model_dump_json(), found=False)


def select(batch: Batch, arguments: tuple[str, str, int, int, Schema, str]) -> Iterator[Batch]:
    """Rows {number, record} to {number, receipt: key of the ids that a filter lets through, found}."""
    store, index, parent, dimension, schema, where = arguments
    storage = open_storage(store)
    folder = Work(storage, index, parent).folder
    for number, record in rows_of(batch, "number", "record"):
        clock = Clock()
        shard = Shard.open(storage, ShardRecord.model_validate_json(record), number, dimension)
        yield clock.row(number, write_selected(storage, folder, shard, where, schema), found=False)


class Embed:
    """Rows {number, key, staged, dropped} to {number, receipt: EmbeddedGroup, found}; `dropped` are keys, as JSON."""

    def __init__(
        self,
        store: str,
        index: str,
        parent: int,
        partitions: int,
        embedder: EmbedderConfig,
        chunking: ChunkingConfig,
        schema: Schema,
    ) -> None:
        self._storage = open_storage(store)
        self._work = Work(self._storage, index, parent)
        self._place = (index, self._work.folder, partitions)
        self._config = (embedder, chunking, schema)

    @cached_property
    def _groups(self) -> GroupEmbedder:
        # Not in the constructor: of an error there, Ray brings the driver no more than its text; and a model is not
        # loaded for groups that are finished.
        embedder, chunking, schema = self._config
        loaded = Embedder.load(embedder, self._storage)
        return GroupEmbedder(self._storage, *self._place, loaded, chunking, schema)

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
        groups = (
            (StagedGroup.model_validate_json(staged), dropped_of(self._storage, json.loads(dropped), number))
            for number, _, staged, dropped in missing
        )
        for (number, key, *_), made in zip(missing, self._groups.embed_all(groups), strict=True):
            yield clock.row(number, self._work.keep("embedded", key, made.model_dump_json()), found=False)
            clock = Clock()


def build(batch: Batch, arguments: tuple[str, str, int, FileRecord, Schema, int, str]) -> Iterator[Batch]:
    """Rows {number, key, plan} to {number, receipt: ShardReceipt, found}."""
    store, index, parent, template, schema, dimension, language = arguments
    work = Work(open_storage(store), index, parent)
    builder = ShardBuilder(open_storage(store), index, template, schema, dimension, language)
    for number, key, plan in rows_of(batch, "number", "key", "plan"):

        def make(plan: str = plan) -> str:
            return builder.build(ShardPlan.model_validate_json(plan)).model_dump_json()

        yield once(work, "built", number, key, make)


def bury(batch: Batch, arguments: tuple[str, str, int, list[str]]) -> Iterator[Batch]:
    """Rows {number, key, record} to {number, receipt: BuriedShard, found}."""
    store, index, parent, dead_keys = arguments
    storage = open_storage(store)
    work = Work(storage, index, parent)
    for number, key, record in rows_of(batch, "number", "key", "record"):

        def make(number: int = number, record: str = record) -> str:
            shard = ShardRecord.model_validate_json(record)
            return bury_rows(storage, index, number, shard, dead_keys).model_dump_json()

        yield once(work, "buried", number, key, make)


def rewrite(batch: Batch, arguments: tuple[str, str, int, FileRecord, Schema]) -> Iterator[Batch]:
    """Rows {number, key, records} to {number, receipt: Rewritten, found}."""
    store, index, parent, template, schema = arguments
    storage = open_storage(store)
    work = Work(storage, index, parent)
    for number, key, records in rows_of(batch, "number", "key", "records"):

        def make(number: int = number, records: str = records) -> str:
            shards = SHARDS.validate_json(records)
            return compact.rewrite(storage, index, number, shards, template, schema).model_dump_json()

        yield once(work, "rewritten", number, key, make)


def move(batch: Batch, arguments: tuple[str, str, int, list[compact.Move]]) -> Iterator[Batch]:
    """Rows {number, key, ledger} to {number, receipt: MovedPartition, found}."""
    store, index, parent, moves = arguments
    storage = open_storage(store)
    work = Work(storage, index, parent)
    for number, key, ledger in rows_of(batch, "number", "key", "ledger"):

        def make(number: int = number, ledger: str = ledger) -> str:
            record = FileRecord.model_validate_json(ledger)
            return compact.move_partition(storage, index, number, record, moves).model_dump_json()

        yield once(work, "moved", number, key, make)


def ledger(batch: Batch, arguments: tuple[str, str, int, Places]) -> Iterator[Batch]:
    """Rows {number, key, kept} to {number, receipt: FileRecord, found}; the number is that of a hash partition."""
    store, index, parent, places = arguments
    storage = open_storage(store)
    work = Work(storage, index, parent)
    for number, key, kept in rows_of(batch, "number", "key", "kept"):

        def make(number: int = number, kept: str = kept) -> str:
            return publish_partition(storage, kept, places, number, index).model_dump_json()

        yield once(work, "ledger", number, key, make)
