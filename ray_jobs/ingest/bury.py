"""Bury: mark what has died in one shard of the snapshot before.

Guaranteed: the shard is not written again; the snapshot before goes on seeing it as it was.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from ray_jobs.index import layout
from ray_jobs.index.deleted import bury
from ray_jobs.index.manifest import ShardRecord
from ray_jobs.storage import Storage


class BuriedShard(BaseModel):
    """A shard with more dead rows than before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int  # its position in the snapshot before
    record: ShardRecord
    total_length: int  # terms of the rows that have died


def bury_rows(storage: Storage, index: str, number: int, record: ShardRecord, dead_keys: Sequence[str]) -> BuriedShard:
    """Mark the rows of the documents in the objects `dead_keys` (LEDGER_SCHEMA) that lie in this shard."""
    found = [
        pq.read_table(storage.local(key), columns=["first_row", "chunks"], filters=[("shard", "=", record.id)])
        for key in dead_keys
    ]
    first = np.concatenate([table.column("first_row").to_numpy() for table in found])
    counts = np.concatenate([table.column("chunks").to_numpy() for table in found])
    rows = np.repeat(first - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
    file = record.files[f"{layout.POSTINGS}/lengths.i32"]
    lengths = np.memmap(storage.local(file.key, file.sha256), "<i4", "r")
    return BuriedShard(
        number=number,
        record=bury(storage, index, record, rows.astype(np.int64)),
        total_length=int(lengths[rows].sum(dtype=np.int64)),
    )
