"""Tables that one stage of a run hands to another through the store.

Guaranteed: a table is whole in the store before its record is returned, and memory holds one piece of it. Not
guaranteed: that it stays; whoever publishes removes what is in flight.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.index.manifest import FileRecord
from ray_jobs.ingest.dead_letters import publish_file
from ray_jobs.storage import Storage, new_id


def store_table(storage: Storage, folder: str, table: pa.Table) -> FileRecord:
    """Store a table as an object of its own below `folder`."""
    return store_tables(storage, f"{folder}/{new_id()}.parquet", table.schema, [table])


def store_tables(storage: Storage, key: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> FileRecord:
    """Store tables at `key`, one below the other, each as row groups of its own."""
    with storage.scratch() as scratch:
        path = scratch / "table.parquet"
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table)
        return publish_file(storage, key, path)
