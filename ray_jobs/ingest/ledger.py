"""The ledger: which source gave which document, and what became of it, in hash partitions of the document id.

Guaranteed: every document of the snapshot is in exactly one partition, sorted by id there; one row group a partition
while a run is under way, one file a partition once it is published.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ray_jobs.corpus.document import VERSION_BYTES
from ray_jobs.index import layout
from ray_jobs.index.manifest import FileRecord
from ray_jobs.ingest.dead_letters import publish_file
from ray_jobs.ingest.plan import partition_of
from ray_jobs.storage import Storage, new_id

INDEXED, EMPTY, FILTERED, DUPLICATE, DELETED = "indexed", "empty", "filtered", "duplicate", "deleted"
# What staging knows of a document.
IDS_SCHEMA = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("version", pa.binary(VERSION_BYTES), nullable=False),
        pa.field("row", pa.int32(), nullable=False),  # in the documents object
        pa.field("source_name", pa.string(), nullable=False),  # of the SOURCE argument
        pa.field("source", pa.string(), nullable=False),  # of the file
        pa.field("filtered", pa.string()),  # the rule of quality that it breaks
    ]
)

LEDGER_SCHEMA = pa.schema(
    [
        *IDS_SCHEMA,
        pa.field("documents_key", pa.string(), nullable=False),
        pa.field("chunks", pa.int32(), nullable=False),
        # "deleted": by the user; then the same version, read again, is not taken again
        pa.field("status", pa.string(), nullable=False),
        pa.field("duplicate_of", pa.string()),  # the id of the one that is searched in its place
        pa.field("similarity", pa.float32()),  # to that one
        pa.field("shard", pa.string()),  # its id; null while a run is under way, and for a document without chunks
        pa.field("first_row", pa.int64(), nullable=False),  # in the shard; while a run is under way, in its group
    ]
)


def write_partitioned(path: Path, table: pa.Table, partitions: int) -> None:
    """Write `table` (with a doc_id column) with one row group a hash partition, empty ones included."""
    numbers = [partition_of(doc_id, partitions) for doc_id in table.column("doc_id").to_pylist()]
    write_row_groups(path, table, np.array(numbers, np.int64), partitions)


def write_row_groups(path: Path, table: pa.Table, numbers: npt.NDArray[np.integer], count: int) -> None:
    """Write `table` as `count` row groups, empty ones included; `numbers` says of each row in which one it is."""
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for number in range(count):
            part = table.filter(pa.array(numbers == number)) if count > 1 else table
            writer.write_table(part, row_group_size=max(1, part.num_rows))


def read_partition(storage: Storage, keys: Sequence[str], partition: int, columns: Sequence[str]) -> list[pa.Table]:
    """The rows of one hash partition in each of the objects."""
    return read_row_groups([storage.local(key) for key in keys], partition, columns)


def read_row_groups(paths: Sequence[Path], number: int, columns: Sequence[str]) -> list[pa.Table]:
    """One row group of each of the files."""
    return [pq.ParquetFile(path).read_row_group(number, columns=list(columns), use_threads=False) for path in paths]


@dataclass(frozen=True)
class Places:
    """Where the rows of embedded groups have come to lie."""

    groups: tuple[tuple[str, int], ...]  # key of a group's part of the ledger, number of its first row among all
    shards: tuple[tuple[str, int], ...]  # id of a shard, number of its first row among all; ascending

    def placed(self, table: pa.Table, first_row: int) -> pa.Table:
        """The entries of a group whose first row has this number, with shard and row."""
        numbers = table.column("first_row").to_numpy() + first_row
        starts = np.array([start for _, start in self.shards], np.int64)
        held = table.column("chunks").to_numpy() > 0
        place = np.where(held, np.searchsorted(starts, numbers, side="right") - 1, 0)
        ids = pa.array([name for name, _ in self.shards], pa.string())
        shard = ids.take(pa.array(place, mask=~held)) if len(ids) else pa.nulls(len(held), pa.string())
        rows = np.where(held, numbers - (starts[place] if len(starts) else 0), 0)
        return with_columns(table, {"shard": shard, "first_row": pa.array(rows, pa.int64())})


def publish_partition(storage: Storage, kept_key: str, places: Places, partition: int, index: str) -> FileRecord:
    """Write one partition of the ledger: what stays of the snapshot before, and what each group has added.

    A document that was a duplicate and is decided anew is in both: what is new counts.
    """
    added = read_partition(storage, [key for key, _ in places.groups], partition, LEDGER_SCHEMA.names)
    tables = [places.placed(table, start) for table, (_, start) in zip(added, places.groups, strict=True)]
    new = pa.concat_tables([LEDGER_SCHEMA.empty_table(), *tables])
    kept = pq.read_table(storage.local(kept_key)).cast(LEDGER_SCHEMA)
    kept = kept.filter(pc.invert(pc.is_in(kept.column("doc_id"), value_set=new.column("doc_id").combine_chunks())))
    whole = pa.concat_tables([kept, new])
    return publish_entries(storage, index, partition, whole.sort_by("doc_id").cast(LEDGER_SCHEMA))


def publish_entries(storage: Storage, index: str, partition: int, entries: pa.Table) -> FileRecord:
    """Store the entries of one partition, LEDGER_SCHEMA, sorted by id."""
    with storage.scratch() as folder:
        path = folder / "ledger.parquet"
        pq.write_table(entries, path, compression="zstd")
        return publish_file(storage, layout.ledger(index, new_id(), partition), path)


def live_documents(
    storage: Storage, files: Sequence[FileRecord], documents_key: str, gone: pa.Array | None = None
) -> pa.Table:
    """The documents of one object that are neither deleted nor of a source in `gone`, LEDGER_SCHEMA."""
    found = _filtered(storage, files, [("documents_key", "=", documents_key), ("status", "!=", DELETED)])
    return found if gone is None else found.filter(pc.invert(pc.is_in(found.column("source"), value_set=gone)))


def known_documents(storage: Storage, file: FileRecord) -> pa.Table:
    """What one partition of a published ledger holds, LEDGER_SCHEMA."""
    return pq.read_table(storage.local(file.key, file.sha256)).cast(LEDGER_SCHEMA)


def deleted_documents(storage: Storage, files: Sequence[FileRecord], partition: int, partitions: int) -> pa.Table:
    """The documents that the user has deleted, of one of so many partitions, LEDGER_SCHEMA."""
    found = _filtered(storage, files, [("status", "=", DELETED)])
    inside = [partition_of(doc_id, partitions) == partition for doc_id in found.column("doc_id").to_pylist()]
    return found.filter(pa.array(inside, pa.bool_()))


def as_deleted(entries: pa.Table) -> pa.Table:
    """The entries of documents that the user deletes."""
    count = entries.num_rows
    return with_columns(
        entries,
        {
            "chunks": pa.array(np.zeros(count), pa.int32()),
            "status": pa.array([DELETED] * count, pa.string()),
            "duplicate_of": pa.nulls(count, pa.string()),
            "similarity": pa.nulls(count, pa.float32()),
            "shard": pa.nulls(count, pa.string()),
            "first_row": pa.array(np.zeros(count), pa.int64()),
        },
    )


def with_columns(entries: pa.Table, columns: Mapping[str, pa.Array]) -> pa.Table:
    """The entries with other values in these columns."""
    for name, column in columns.items():
        entries = entries.set_column(entries.column_names.index(name), LEDGER_SCHEMA.field(name), column)
    return entries


def fates(entries: pa.Table) -> dict[str, int]:
    """How many documents have each status; of filtered ones under "filtered RULE"."""
    named = pc.if_else(
        pc.equal(entries.column("status"), FILTERED),
        pc.binary_join_element_wise(entries.column("status"), entries.column("filtered"), " ", null_handling="skip"),
        entries.column("status"),
    )
    return dict(Counter(named.to_pylist()))


def _filtered(storage: Storage, files: Sequence[FileRecord], filters: list[tuple[str, str, str]]) -> pa.Table:
    tables = [pq.read_table(storage.local(file.key, file.sha256), filters=filters) for file in files]
    return pa.concat_tables([LEDGER_SCHEMA.empty_table(), *(table.cast(LEDGER_SCHEMA) for table in tables)])
