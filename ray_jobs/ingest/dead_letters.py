"""Dead letters: what could not be indexed, each with its place and reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.index import layout
from ray_jobs.index.manifest import FileRecord
from ray_jobs.storage import Storage, new_id, sha256_of

DEAD_LETTER_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("doc_id", pa.string()),
        pa.field("locator", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class DeadLetter:
    """One thing that could not be indexed."""

    source: str
    doc_id: str | None
    locator: str  # where in the source
    reason: str  # a code that can be counted
    message: str  # a sentence for people


def write_dead_letters(storage: Storage, index: str, letters: Sequence[DeadLetter], folder: Path) -> FileRecord | None:
    """Store `letters` as one object of the index; None when there are none."""
    if not letters:
        return None
    table = pa.Table.from_pylist([vars(letter) for letter in letters], schema=DEAD_LETTER_SCHEMA)
    return _publish(storage, index, table, folder)


def store_dead_letters(storage: Storage, index: str, table: pa.Table) -> FileRecord:
    """Store a table of DEAD_LETTER_SCHEMA as one object of the index."""
    with storage.scratch() as folder:
        return _publish(storage, index, table, folder)


def _publish(storage: Storage, index: str, table: pa.Table, folder: Path) -> FileRecord:
    path = folder / "dead_letters.parquet"
    pq.write_table(table, path, compression="zstd")
    return publish_file(storage, layout.dead_letters(index, new_id()), path)


def publish_file(storage: Storage, key: str, path: Path) -> FileRecord:
    """Upload a finished file and describe it."""
    record = FileRecord(key=key, size=path.stat().st_size, sha256=sha256_of(path))
    storage.upload(key, path)
    return record
