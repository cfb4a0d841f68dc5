"""The groups of a plan: which parts of which sources one task reads.

Guaranteed: the driver keeps them on disk, and hands them to the workers through the store, some to an object, so that
neither it nor a worker holds all of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from ray_jobs.corpus.batches import batches_of
from ray_jobs.corpus.planning import SourcePart
from ray_jobs.index.manifest import FileRecord
from ray_jobs.ingest.in_flight import store_tables
from ray_jobs.storage import Storage, new_id

OBJECT_CHARACTERS = 4 << 20  # of descriptions in one object
_PARTS: TypeAdapter[tuple[SourcePart, ...]] = TypeAdapter(tuple[SourcePart, ...])
_SCHEMA = pa.schema([pa.field("parts", pa.string(), nullable=False)])


@dataclass(frozen=True, slots=True)
class SourceGroup:
    """One group."""

    number: int
    size: int  # bytes to be read
    described: str  # its parts, JSON

    @property
    def parts(self) -> tuple[SourcePart, ...]:
        """What is read."""
        return _PARTS.validate_json(self.described)


class Groups:
    """The groups of one plan, in order, in the database of the listing."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._count = 0

    def add(self, groups: Iterable[Sequence[SourcePart]]) -> None:
        """Number groups and keep them."""
        for parts in groups:
            size = sum(part.size for part in parts)
            described = _PARTS.dump_json(tuple(parts)).decode()
            self._database.execute("INSERT INTO groups VALUES (?, ?, ?)", (self._count, size, described))
            self._count += 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[SourceGroup]:
        for row in self._database.execute("SELECT number, size, parts FROM groups ORDER BY number"):
            yield SourceGroup(*row)

    def __getitem__(self, number: int) -> SourceGroup:
        query = "SELECT number, size, parts FROM groups WHERE number = ?"
        return SourceGroup(*self._database.execute(query, (number,)).fetchone())

    def files(self, number: int) -> list[str]:
        """The names of the files of a group; none for a number that no group of the plan has."""
        parts = self[number].parts if number < len(self) else ()
        return list(dict.fromkeys(part.file.doc_id for part in parts))


def store_groups(
    storage: Storage, folder: str, groups: Iterable[SourceGroup]
) -> Iterator[tuple[SourceGroup, FileRecord, int]]:
    """Store groups below `folder`; yields each with the object that holds it and its row there."""
    for some in batches_of(groups, lambda group: len(group.described), OBJECT_CHARACTERS):
        tables = (pa.table([[group.described]], schema=_SCHEMA) for group in some)
        record = store_tables(storage, f"{folder}/groups/{new_id()}.parquet", _SCHEMA, tables)
        for row, group in enumerate(some):
            yield group, record, row


def read_parts(storage: Storage, record: FileRecord, row: int) -> tuple[SourcePart, ...]:
    """The parts of the group in a row of an object."""
    with pq.ParquetFile(storage.local(record.key, record.sha256)) as file:
        return _PARTS.validate_json(file.read_row_group(row).column("parts")[0].as_py())
