"""What the stages of an ingest run hand to each other: small, JSON, one a group.

Guaranteed: a receipt is returned only after every object that it names is durable in the store. A task that Ray runs
again writes new objects under new ids and returns its own receipt; the objects of the lost attempt are named by none.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from ray_jobs.corpus.metadata import ColumnType
from ray_jobs.index.manifest import FileRecord


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StagedGroup(_Frozen):
    """Documents of one group, extracted and stored."""

    group: int
    documents: FileRecord  # in the index, DOCUMENT_SCHEMA
    ids_key: str  # in the run, IDS_SCHEMA, one row group a hash partition
    dead_letters: FileRecord | None
    kept: bool  # of the snapshot before, not read in this run
    sources_read: int
    sources_failed: int
    produced: int  # documents, those that failed included
    failed: int
    text_bytes: int
    metadata: dict[str, ColumnType]
    content: str  # sum of the hashes of (doc_id, version) modulo 2^128, hexadecimal


class Dropped(_Frozen):
    """A document that another one of the same id displaces."""

    group: int
    row: int
    reason: str  # "duplicate" (same content), "replaced" (an older version), "duplicate-id" (another content)
    kept_in: str  # the source of the one that stays


class EmbeddedGroup(_Frozen):
    """Chunks of one group, with their vectors."""

    group: int
    rows_key: str  # in the run: Arrow IPC, the rows of a shard and their lexical text
    vectors_key: str  # in the run: (rows, d) float16
    ledger_key: str  # in the run, LEDGER_SCHEMA, one row group a hash partition
    dead_letters: FileRecord | None
    rows: int
    bytes: int  # of rows and vectors
    indexed: int
    empty: int
    duplicates: int
    replaced: int
    failed: int
    forward_seconds: float
    seconds: float


class GroupSlice(_Frozen):
    """The part of an embedded group that lies before and after a shard's bounds is another shard's."""

    rows_key: str
    vectors_key: str
    first_row: int  # global number of the group's first row
    rows: int


class ShardPlan(_Frozen):
    """One shard to build: the documents whose first row lies in [start, end)."""

    number: int
    start: int
    end: int
    groups: tuple[GroupSlice, ...]
