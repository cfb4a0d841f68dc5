"""Which documents a deletion means: by their ids, or by a filter on metadata."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from ray_jobs.corpus.metadata import Schema
from ray_jobs.index.filters import parse
from ray_jobs.index.shard import Shard
from ray_jobs.ingest.in_flight import store_table
from ray_jobs.storage import Storage


def write_selected(storage: Storage, folder: str, shard: Shard, where: str, schema: Schema) -> str:
    """Store the ids of the documents of a shard that `where` lets through; returns the key."""
    allowed = shard.allowed(parse(where), schema)
    return write_ids(storage, folder, pc.unique(shard.rows.table.column("doc_id").filter(pa.array(allowed))))


def write_ids(storage: Storage, folder: str, ids: pa.Array | Sequence[str]) -> str:
    """Store ids of documents; returns the key."""
    return store_table(storage, f"{folder}/selected", pa.table({"doc_id": pa.array(ids, pa.string())})).key
