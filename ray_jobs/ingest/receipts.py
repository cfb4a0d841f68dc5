"""What the stages of an ingest run hand to each other: small, JSON, one a group.

Guaranteed: a receipt is returned only after every object that it names is durable in the store. A task that Ray runs
again writes new objects under new ids and returns its own receipt; the objects of the lost attempt are named by none.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ray_jobs.corpus.metadata import ColumnType
from ray_jobs.index.manifest import FileRecord, SketchRecord


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StagedGroup(_Frozen):
    """Documents of one group, extracted and stored."""

    group: int
    documents: FileRecord  # in the index, DOCUMENT_SCHEMA
    ids_key: str  # in the run, IDS_SCHEMA, one row group a hash partition
    dead_letters: FileRecord | None
    taken_over: bool  # of the snapshot before, not read in this run
    sources_read: int
    sources_failed: int
    produced: int  # documents, those that failed included
    failed: int
    reasons: dict[str, int] = Field(default_factory=dict)  # why, files among them
    text_bytes: int
    masked: dict[str, int]  # personal data, by kind
    metadata: dict[str, ColumnType]


class Cut(_Frozen):
    """What of a group, or of a shard, one partition leaves out."""

    documents: int
    digest: str  # of which ones, and why
    letters: int = 0  # of these, how many become dead letters


class DecidedPartition(_Frozen):
    """What becomes of the documents of one hash partition."""

    partition: int
    dropped_key: str  # in the run, DROPPED_SCHEMA
    kept_key: str  # in the run, LEDGER_SCHEMA, of the snapshot before
    kept_sha256: str
    dead_key: str  # in the run, LEDGER_SCHEMA, of the snapshot before
    groups: dict[int, Cut]  # what is not embedded
    shards: dict[str, Cut]  # what has died, by id
    reasons: dict[str, int]  # why documents are not embedded
    kept: dict[str, int]  # documents of the snapshot before, by status
    dead: int  # documents of the snapshot before


class OrphanedPartition(_Frozen):
    """Duplicates of one hash partition whose other document is searched no more."""

    partition: int
    key: str  # in the run, LEDGER_SCHEMA
    objects: dict[str, int]  # how many there are, by the documents object that has their text


class SketchedGroup(_Frozen):
    """What finds the documents of a group that are like others."""

    group: int
    record: SketchRecord  # in the index
    documents: int


class MatchedPartition(_Frozen):
    """Pairs of documents that are alike, whose keys fall into one partition."""

    partition: int
    key: str  # in the run, EDGE_SCHEMA, one row group a range of groups
    edges: int
    old: int  # of these, to documents of the snapshot before


class SettledRange(_Frozen):
    """Documents of a range of groups that others stand for."""

    key: str  # in the run, DROPPED_SCHEMA
    groups: dict[int, Cut]


class Alike(_Frozen):
    """What came of the search for documents that are alike."""

    sketched: tuple[SketchedGroup, ...] = ()
    settled: tuple[SettledRange, ...] = ()


class EmbeddedGroup(_Frozen):
    """Chunks of one group, with their vectors."""

    group: int
    rows_key: str  # in the run: Arrow IPC, the rows of a shard and their lexical text
    vectors_key: str  # in the run: (rows, d) float16
    ledger_key: str  # in the run, LEDGER_SCHEMA, one row group a hash partition
    documents: FileRecord  # in the index, those of the staged group
    dead_letters: FileRecord | None
    rows: int
    bytes: int  # of rows and vectors
    indexed: int
    empty: int
    filtered: dict[str, int]  # by rule
    duplicates: int  # of documents with other ids
    examples: tuple[tuple[str, str, str], ...]  # of filtered ones and duplicates: fate, id, why
    misfits: int  # documents whose metadata do not fit their columns
    reasons: dict[str, int] = Field(default_factory=dict)  # of dead letters
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
