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
from ray_jobs.ingest.pieces import Batch, anew, once, rows_of
from ray_jobs.ingest.receipts import Alike, StagedGroup
from ray_jobs.ingest.stage import Reading, Stager
from ray_jobs.ingest.work import Place

GROUPS: TypeAdapter[list[tuple[int, SketchRecord]]] = TypeAdapter(list[tuple[int, SketchRecord]])


def orphans(batch: Batch, arguments: tuple[Place, list[str]]) -> Iterator[Batch]:
    """Rows {number, kept} to {number, receipt: OrphanedPartition, found}."""
    place, dead_keys = arguments
    work = place.open()
    for number, kept in rows_of(batch, "number", "kept"):

        def make(number: int = number, kept: str = kept) -> str:
            return find_orphans(work.storage, work.folder, number, kept, dead_keys).model_dump_json()

        yield anew(work, "orphans", number, make)


def revive(batch: Batch, arguments: tuple[Place, int, Reading, list[str]]) -> Iterator[Batch]:
    """Rows {number, documents} to {number, receipt: StagedGroup, found}."""
    place, partitions, reading, orphan_keys = arguments
    work = place.open()
    stager = Stager(work.storage, work.index, work.folder, partitions, reading)
    for number, documents in rows_of(batch, "number", "documents"):

        def make(number: int = number, documents: str = documents) -> str:
            record = FileRecord.model_validate_json(documents)
            entries = orphans_of(work.storage, orphan_keys, record.key)
            return stager.take_over(number, record, entries).model_dump_json()

        yield anew(work, "revived", number, make)


def sketch(batch: Batch, arguments: tuple[Place, int, Schema, Deduplicate]) -> Iterator[Batch]:
    """Rows {number, key, staged, dropped} to {number, receipt: SketchedGroup, found}; `dropped` are keys, as JSON."""
    place, partitions, schema, how = arguments
    work = place.open()
    sketcher = Sketcher(work.storage, work.index, partitions, schema, how)
    for number, key, staged, dropped in rows_of(batch, "number", "key", "staged", "dropped"):

        def make(number: int = number, staged: str = staged, dropped: str = dropped) -> str:
            left_out = dropped_of(work.storage, json.loads(dropped), number)
            return sketcher.sketch(StagedGroup.model_validate_json(staged), left_out).model_dump_json()

        yield once(work, "sketched", number, key, make)


def match(batch: Batch, arguments: tuple[Place, bytes, list[int], float]) -> Iterator[Batch]:
    """Rows {number, key} to {number, receipt: MatchedPartition, found}."""
    place, groups, ranges, threshold = arguments
    work = place.open()
    sketched = GROUPS.validate_json(groups)
    for number, key in rows_of(batch, "number", "key"):

        def make(number: int = number) -> str:
            found = match_partition(work.storage, work.folder, number, sketched, ranges, threshold)
            return found.model_dump_json()

        yield once(work, "matched", number, key, make)


def live(batch: Batch, arguments: tuple[Place, list[str], list[str]]) -> Iterator[Batch]:
    """Rows {number, kept} to {number, receipt: key of the documents that are searched still, found}."""
    place, matched_keys, documents = arguments
    work = place.open()
    for number, kept in rows_of(batch, "number", "kept"):

        def make(kept: str = kept) -> str:
            return living(work.storage, work.folder, kept, matched_keys, documents)

        yield anew(work, "living", number, make)


def settle_all(batch: Batch, arguments: tuple[Place, list[str], list[str]]) -> Iterator[Batch]:
    """One row {number: of ranges} to {number, receipt: Alike, found}."""
    place, matched_keys, living_keys = arguments
    work = place.open()
    for (number,) in rows_of(batch, "number"):

        def make(number: int = number) -> str:
            settled = settle(work.storage, work.folder, matched_keys, living_keys, number)
            return Alike(settled=tuple(settled)).model_dump_json()

        yield anew(work, "settled", number, make)
