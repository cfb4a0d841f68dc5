"""What a snapshot knows of the files that it was made from, so that the next run opens only those that have changed.

Guaranteed: memory holds a batch of files, however many there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.index import layout
from ray_jobs.index.manifest import FileRecord
from ray_jobs.ingest.in_flight import store_tables
from ray_jobs.storage import Storage, new_id

SEEN_SCHEMA = pa.schema(
    [
        pa.field("source_name", pa.string(), nullable=False),  # of the SOURCE argument
        pa.field("source", pa.string(), nullable=False),  # of the file
        pa.field("size", pa.int64(), nullable=False),  # bytes
        pa.field("modified", pa.string(), nullable=False),
        pa.field("failed", pa.bool_(), nullable=False),  # something of it could not be indexed
    ]
)
_BATCH = 10_000  # files


def read(storage: Storage, record: FileRecord | None) -> Iterator[pa.RecordBatch]:
    """What a snapshot has seen, SEEN_SCHEMA; nothing for None."""
    if record is not None:
        with pq.ParquetFile(storage.local(record.key, record.sha256)) as file:
            yield from file.iter_batches(_BATCH)


def publish(storage: Storage, index: str, seen: Iterable[pa.Table]) -> FileRecord:
    """Store it for the next run."""
    return store_tables(storage, layout.seen(index, new_id()), SEEN_SCHEMA, seen)
