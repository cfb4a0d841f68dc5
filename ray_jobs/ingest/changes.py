"""What has become of the files of the SOURCE arguments since the snapshot before saw them, in a database on disk.

Guaranteed: a file is unchanged where its identity, size and modification mark are those that were seen; every listed
file is new, changed or unchanged; a file that is listed no more is forgotten only where its documents are removed.
Memory does not depend on the number of files. Not guaranteed: that a file which was changed without a trace in size and
mark is noticed; that the database outlives the run.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from ray_jobs.corpus.planning import OPENING_BYTES
from ray_jobs.corpus.sources import SourceFile
from ray_jobs.errors import StorageError
from ray_jobs.ingest.seen import SEEN_SCHEMA

ROWS = 10_000  # that are in memory at a time
_CACHE = 4 << 10  # KiB of the database
_COLUMNS = ("source", "source_name", "size", "modified", "failed")
_TABLES = f"""
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -{_CACHE};
CREATE TABLE listed (
    doc_id TEXT NOT NULL, source TEXT NOT NULL, uri BLOB NOT NULL, relative BLOB NOT NULL,
    size INTEGER NOT NULL, modified TEXT NOT NULL, format TEXT NOT NULL, fresh INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE seen (
    doc_id TEXT PRIMARY KEY, source TEXT NOT NULL, size INTEGER NOT NULL, modified TEXT NOT NULL,
    failed INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE failing (doc_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE groups (number INTEGER PRIMARY KEY, size INTEGER NOT NULL, parts TEXT NOT NULL);
"""
_ORDER = (
    "CREATE INDEX by_id ON listed (doc_id)",
    "CREATE TABLE sources AS SELECT DISTINCT source FROM listed",
)
_MARK = """
UPDATE listed SET fresh = NOT EXISTS (
    SELECT 1 FROM seen
    WHERE seen.doc_id = listed.doc_id AND seen.size = listed.size AND seen.modified = listed.modified
        AND NOT (seen.failed AND :again)
)
"""
_VANISHED = """
FROM seen WHERE source IN (SELECT source FROM sources)
    AND NOT EXISTS (SELECT 1 FROM listed WHERE listed.doc_id = seen.doc_id)
"""
_GONE = f"""
SELECT doc_id FROM listed
    WHERE fresh AND doc_id IN (SELECT doc_id FROM seen) AND doc_id NOT IN (SELECT doc_id FROM failing)
UNION SELECT doc_id {_VANISHED} ORDER BY doc_id
"""
_SEEN_AFTER = """
SELECT source, doc_id, size, modified,
    doc_id IN (SELECT doc_id FROM failing)
        OR (NOT fresh AND doc_id IN (SELECT doc_id FROM seen WHERE failed))
    FROM listed
UNION ALL
SELECT source, doc_id, size, modified, failed OR doc_id IN (SELECT doc_id FROM failing)
    FROM seen WHERE NOT EXISTS (SELECT 1 FROM listed WHERE listed.doc_id = seen.doc_id)
        AND NOT (:forget AND source IN (SELECT source FROM sources))
"""


class Changes:
    """The files that were listed and those that were seen, compared."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self.database = database

    @cached_property
    def files(self) -> int:
        """How many were listed."""
        return self._count("FROM listed")

    @cached_property
    def fresh(self) -> int:
        """How many are read: new and changed ones."""
        return self._count("FROM listed WHERE fresh")

    @property
    def unchanged(self) -> int:
        """How many need not be opened."""
        return self.files - self.fresh

    @cached_property
    def new(self) -> int:
        """How many are read that were never seen."""
        return self._count("FROM listed WHERE fresh AND doc_id NOT IN (SELECT doc_id FROM seen)")

    @cached_property
    def vanished(self) -> int:
        """How many were seen and are listed no more."""
        return self._count(_VANISHED)

    @cached_property
    def bytes(self) -> int:
        """To be read."""
        return self._one("SELECT coalesce(sum(size), 0) FROM listed WHERE fresh")

    @cached_property
    def weight(self) -> int:
        """Bytes to be read, each file counting as OPENING_BYTES at least."""
        return self._one(f"SELECT coalesce(sum(max(size, {OPENING_BYTES})), 0) FROM listed WHERE fresh")

    def to_read(self) -> Iterator[SourceFile]:
        """New and changed files, in the order in which they were listed."""
        columns = "source, uri, relative, size, modified, format"
        for source, uri, relative, *rest in self._rows(f"SELECT {columns} FROM listed WHERE fresh ORDER BY rowid"):
            yield SourceFile(source, os.fsdecode(uri), os.fsdecode(relative), *rest)

    def formats(self) -> dict[str, int]:
        """How many files are read of each format."""
        return dict(self._rows("SELECT format, count(*) FROM listed WHERE fresh GROUP BY format ORDER BY format"))

    def fail(self, sources: Iterable[str]) -> None:
        """Something of these files could not be indexed in this run."""
        self.database.executemany("INSERT OR IGNORE INTO failing VALUES (?)", ((source,) for source in sources))

    def gone(self) -> Iterator[list[str]]:
        """The files whose documents go unless they were read again: vanished ones, and those that were read whole."""
        return ([name for (name,) in rows] for rows in self._chunks(_GONE))

    def read_among(self, sources: Collection[str]) -> set[str]:
        """Which of these files are read in this run."""
        return self._among(sources, "SELECT doc_id FROM listed WHERE fresh AND doc_id = ?")

    def vanished_among(self, sources: Collection[str]) -> set[str]:
        """Which of these files were seen and are listed no more."""
        return self._among(sources, f"SELECT doc_id {_VANISHED} AND doc_id = ?")

    def seen_after(self, forget_vanished: bool) -> Iterator[pa.Table]:
        """What is known when the files have been read, SEEN_SCHEMA.

        Something failed of those that `fail` was told of, and still of those that were not read and had failed before.
        """
        for rows in self._chunks(_SEEN_AFTER, {"forget": forget_vanished}):
            columns = [*map(list, zip(*rows, strict=True))]
            columns[-1] = [bool(value) for value in columns[-1]]
            yield pa.table(columns, schema=SEEN_SCHEMA)

    def _among(self, sources: Collection[str], query: str) -> set[str]:
        found = (self.database.execute(query, (source,)).fetchone() for source in sources)
        return {row[0] for row in found if row is not None}

    def _count(self, tail: str) -> int:
        return self._one(f"SELECT count(*) {tail}")

    def _one(self, query: str) -> int:
        (value,) = self.database.execute(query).fetchone()
        return int(value)

    def _rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        return chain.from_iterable(self._chunks(query))

    def _chunks(self, query: str, values: dict[str, object] | None = None) -> Iterator[list[tuple[Any, ...]]]:
        with closing(self.database.execute(query, values or {})) as cursor:
            while rows := cursor.fetchmany(ROWS):
                yield rows


@contextmanager
def compared(
    listed: Iterable[SourceFile] = (), seen: Iterable[pa.RecordBatch] = (), again: bool = False
) -> Iterator[Changes]:
    """Compare files with what was seen, SEEN_SCHEMA; `again`: those of which something failed are read anew.

    Raises StorageError where the folder of temporary files takes no database.
    """
    with tempfile.TemporaryDirectory(prefix="tandem-listing-") as folder:
        try:
            with closing(sqlite3.connect(Path(folder) / "listing.db", isolation_level=None)) as database:
                database.executescript(_TABLES)
                database.execute("BEGIN")
                for batch in seen:
                    rows = zip(*(batch.column(name).to_pylist() for name in _COLUMNS), strict=True)
                    database.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?)", rows)
                database.executemany(f"INSERT INTO listed VALUES ({', '.join('?' * 7)}, 0)", map(_row, listed))
                for statement in _ORDER:
                    database.execute(statement)
                database.execute(_MARK, {"again": again})
                yield Changes(database)
        except sqlite3.Error as error:
            raise StorageError(
                f"folder={folder}: the listing of the sources does not fit there ({error}); free space, or set TMPDIR "
                f"to a folder on a larger disk"
            ) from None


def _row(file: SourceFile) -> tuple[object, ...]:
    uri, relative = os.fsencode(file.uri), os.fsencode(file.relative)
    return file.doc_id, file.source, uri, relative, file.size, file.modified, file.format
