"""The stages that find documents which are alike, as Ray Data sees them: rows of JSON in, receipts of JSON out."""

from __future__ import annotations

import json
from collections.abc import Iterator

from pydantic import TypeAdapter

from ray_jobs.corpus.metadata import Schema
from ray_jobs.index.manifest import FileRecord, SketchRecord
from ray_jobs.ingest.config import Deduplicate
from ray_jobs.ingest.duplicates.matching import match_partition
from ray_jobs.ingest.duplicates.orphans import find_orphans, orphans_of
from ray_jobs.ingest.duplicates.settling import living, settle
from ray_jobs.ingest.duplicates.sketches import Sketcher
from ray_jobs.ingest.partition import dropped_of
from ray_jobs.ingest.pieces import Batch, Clock, once, rows_of
from ray_jobs.ingest.receipts import Alike, StagedGroup
from ray_jobs.ingest.stage import Reading, Stager
from ray_jobs.ingest.work import Work
from ray_jobs.storage import open_storage

GROUPS: TypeAdapter[list[tuple[int, SketchRecord]]] = TypeAdapter(list[tuple[int, SketchRecord]])


def orphans(batch: Batch, arguments: tuple[str, str, int, list[str]]) -> Iterator[Batch]:
    """Rows {number, kept} to {number, receipt: OrphanedPartition, found}."""
    store, index, parent, dead_keys = arguments
    storage = open_storage(store)
    folder = Work(storage, index, parent).folder
    for number, kept in rows_of(batch, "number", "kept"):
        clock = Clock()
        yield clock.row(number, find_orphans(storage, folder, number, kept, dead_keys).model_dump_json(), found=False)


def revive(batch: Batch, arguments: tuple[str, str, int, int, Reading, list[str]]) -> Iterator[Batch]:
    """Rows {number, documents} to {number, receipt: StagedGroup, found}."""
    store, index, parent, partitions, reading, orphan_keys = arguments
    storage = open_storage(store)
    stager = Stager(storage, index, Work(storage, index, parent).folder, partitions, reading)
    for number, documents in rows_of(batch, "number", "documents"):
        clock = Clock()
        record = FileRecord.model_validate_json(documents)
        entries = orphans_of(storage, orphan_keys, record.key)
        yield clock.row(number, stager.take_over(number, record, entries).model_dump_json(), found=False)


def sketch(batch: Batch, arguments: tuple[str, str, int, int, Schema, Deduplicate]) -> Iterator[Batch]:
    """Rows {number, key, staged, dropped} to {number, receipt: SketchedGroup, found}; `dropped` are keys, as JSON."""
    store, index, parent, partitions, schema, how = arguments
    storage = open_storage(store)
    work = Work(storage, index, parent)
    sketcher = Sketcher(storage, index, partitions, schema, how)
    for number, key, staged, dropped in rows_of(batch, "number", "key", "staged", "dropped"):

        def make(number: int = number, staged: str = staged, dropped: str = dropped) -> str:
            left_out = dropped_of(storage, json.loads(dropped), number)
            return sketcher.sketch(StagedGroup.model_validate_json(staged), left_out).model_dump_json()

        yield once(work, "sketched", number, key, make)


def match(batch: Batch, arguments: tuple[str, str, int, bytes, list[int], float]) -> Iterator[Batch]:
    """Rows {number, key} to {number, receipt: MatchedPartition, found}."""
    store, index, parent, groups, ranges, threshold = arguments
    storage = open_storage(store)
    work = Work(storage, index, parent)
    sketched = GROUPS.validate_json(groups)
    for number, key in rows_of(batch, "number", "key"):

        def make(number: int = number) -> str:
            found = match_partition(storage, work.folder, number, sketched, ranges, threshold)
            return found.model_dump_json()

        yield once(work, "matched", number, key, make)


def live(batch: Batch, arguments: tuple[str, str, int, list[str], list[str]]) -> Iterator[Batch]:
    """Rows {number, kept} to {number, receipt: key of the documents that are searched still, found}."""
    store, index, parent, matched_keys, documents = arguments
    storage = open_storage(store)
    folder = Work(storage, index, parent).folder
    for number, kept in rows_of(batch, "number", "kept"):
        clock = Clock()
        yield clock.row(number, living(storage, folder, kept, matched_keys, documents), found=False)


def settle_all(batch: Batch, arguments: tuple[str, str, int, list[str], list[str]]) -> Iterator[Batch]:
    """One row {number: of ranges} to {number, receipt: Alike, found}."""
    store, index, parent, matched_keys, living_keys = arguments
    storage = open_storage(store)
    folder = Work(storage, index, parent).folder
    for (number,) in rows_of(batch, "number"):
        clock = Clock()
        settled = settle(storage, folder, matched_keys, living_keys, number)
        yield clock.row(number, Alike(settled=tuple(settled)).model_dump_json(), found=False)
