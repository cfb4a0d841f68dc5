"""Orphans: duplicates of documents that are searched no more. They are decided anew, beside what is new.

Guaranteed: nothing that was indexed is lost with the one that stood for it. Memory: the duplicates of one partition of
the ledger, and what has died of another one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ray_jobs.ingest.in_flight import store_table
from ray_jobs.ingest.ledger import DUPLICATE, LEDGER_SCHEMA
from ray_jobs.ingest.receipts import OrphanedPartition
from ray_jobs.storage import Storage


def find_orphans(
    storage: Storage, folder: str, partition: int, kept_key: str, dead_keys: Sequence[str]
) -> OrphanedPartition:
    """Find and store them, LEDGER_SCHEMA: of what stays of one partition those whose other document has died."""
    kept = pq.read_table(storage.local(kept_key), filters=[("status", "=", DUPLICATE)]).cast(LEDGER_SCHEMA)
    found = [LEDGER_SCHEMA.empty_table()]
    for dead_key in dead_keys:
        dead = pq.read_table(storage.local(dead_key), columns=["doc_id"]).column("doc_id").combine_chunks()
        found.append(kept.filter(pc.is_in(kept.column("duplicate_of"), value_set=dead)))
    orphans = pa.concat_tables(found)
    key = store_table(storage, f"{folder}/orphans", orphans).key
    objects = dict(Counter(orphans.column("documents_key").to_pylist()))
    return OrphanedPartition(partition=partition, key=key, objects=objects)


def orphans_of(storage: Storage, keys: Sequence[str], documents_key: str) -> pa.Table:
    """The orphans whose text one documents object has, LEDGER_SCHEMA."""
    tables = [pq.read_table(storage.local(key), filters=[("documents_key", "=", documents_key)]) for key in keys]
    return pa.concat_tables([LEDGER_SCHEMA.empty_table(), *(table.cast(LEDGER_SCHEMA) for table in tables)])
