"""The sources whose documents are removed unless they were read again: what a run with `prune` goes by.

Guaranteed: a source of which something failed in this run is not among them: what cannot be read is not removed.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.index.manifest import FileRecord
from ray_jobs.ingest.changes import Changes
from ray_jobs.ingest.in_flight import store_tables
from ray_jobs.storage import Storage, new_id

_SCHEMA = pa.schema([pa.field("source", pa.string(), nullable=False)])


def write_gone(storage: Storage, folder: str, changes: Changes) -> FileRecord:
    """Store the sources that vanished, and those that were read whole and were known before."""
    tables = (pa.table([names], schema=_SCHEMA) for names in changes.gone())
    return store_tables(storage, f"{folder}/gone/{new_id()}.parquet", _SCHEMA, tables)


def read_gone(storage: Storage, record: FileRecord | None) -> pa.Array | None:
    """What was stored; None for None."""
    if record is None:
        return None
    return pq.read_table(storage.local(record.key, record.sha256)).column("source").combine_chunks()
