"""Tables that one stage of a run hands to another through the store.

Guaranteed: a table is whole in the store before its record is returned. Not guaranteed: that it stays; whoever
publishes removes what is in flight.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.index.manifest import FileRecord
from ray_jobs.ingest.dead_letters import publish_file
from ray_jobs.storage import Storage, new_id


def store_table(storage: Storage, folder: str, table: pa.Table) -> FileRecord:
    """Store a table as an object of its own below `folder`."""
    with storage.scratch() as scratch:
        path = scratch / "table.parquet"
        pq.write_table(table, path, compression="zstd")
        return publish_file(storage, f"{folder}/{new_id()}.parquet", path)
