"""The sources whose documents are removed unless they were read again: what a run with `prune` goes by.

Guaranteed: a source of which something failed in this run is not among them: what cannot be read is not removed.
"""

from __future__ import annotations

from collections.abc import Collection

import pyarrow.parquet as pq

from ray_jobs.ingest.seen import Changes
from ray_jobs.ingest.select import write_names
from ray_jobs.storage import Storage


def write_gone(storage: Storage, folder: str, changes: Changes, failed: Collection[str]) -> str:
    """Store the sources that vanished, and those that were read whole; returns the key."""
    read = {file.doc_id for file in changes.to_read} - set(failed)
    return write_names(storage, f"{folder}/gone", "source", sorted(read | set(changes.vanished)))


def read_gone(storage: Storage, key: str | None) -> frozenset[str]:
    """What was stored; nothing for None."""
    if key is None:
        return frozenset()
    return frozenset(pq.read_table(storage.local(key)).column("source").to_pylist())
