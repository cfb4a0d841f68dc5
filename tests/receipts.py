"""Made-up receipts of an ingest run."""

from __future__ import annotations

from ray_jobs.index.manifest import FileRecord
from ray_jobs.ingest.receipts import EmbeddedGroup


def embedded(number: int, rows: int) -> EmbeddedGroup:
    return EmbeddedGroup(
        group=number,
        documents=FileRecord(key="d", size=0, sha256=""),
        rows_key=f"r{number}",
        vectors_key=f"v{number}",
        ledger_key="l",
        dead_letters=None,
        rows=rows,
        bytes=rows,
        indexed=0,
        empty=0,
        filtered={},
        duplicates=0,
        examples=(),
        misfits=0,
        forward_seconds=0,
        seconds=0,
    )
