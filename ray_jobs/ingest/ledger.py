"""The ledger: which source gave which document, and what became of it, in hash partitions of the document id.

Guaranteed: every document of the snapshot is in exactly one partition, sorted by id there; one row group a partition
while a run is under way, one file a partition once it is published.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.corpus.document import VERSION_BYTES
from ray_jobs.index.manifest import FileRecord
from ray_jobs.ingest.dead_letters import publish_file
from ray_jobs.ingest.plan import partition_of
from ray_jobs.storage import Storage

# What staging knows of a document.
IDS_SCHEMA = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("version", pa.binary(VERSION_BYTES), nullable=False),
        pa.field("row", pa.int32(), nullable=False),  # in the documents object
        pa.field("source_name", pa.string(), nullable=False),  # of the SOURCE argument
        pa.field("source", pa.string(), nullable=False),  # of the file
        pa.field("source_size", pa.int64(), nullable=False),  # bytes
        pa.field("source_modified", pa.string(), nullable=False),
    ]
)

LEDGER_SCHEMA = pa.schema(
    [
        *IDS_SCHEMA,
        pa.field("documents_key", pa.string(), nullable=False),
        pa.field("chunks", pa.int32(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # "indexed" or "empty"
    ]
)


def write_partitioned(path: Path, table: pa.Table, partitions: int) -> None:
    """Write `table` (with a doc_id column) with one row group a hash partition, empty ones included."""
    numbers = [partition_of(doc_id, partitions) for doc_id in table.column("doc_id").to_pylist()]
    partition = pa.array(numbers, pa.int32())
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for number in range(partitions):
            part = table.filter(pa.compute.equal(partition, number)) if partitions > 1 else table
            writer.write_table(part, row_group_size=max(1, part.num_rows))


def read_partition(storage: Storage, keys: Sequence[str], partition: int, columns: Sequence[str]) -> list[pa.Table]:
    """The rows of one hash partition in each of the objects."""
    return [
        pq.ParquetFile(storage.local(key)).read_row_group(partition, columns=list(columns), use_threads=False)
        for key in keys
    ]


def publish_partition(storage: Storage, keys: Sequence[str], partition: int, key: str, folder: Path) -> FileRecord:
    """Write one partition of the ledger from the parts that each group left."""
    tables = read_partition(storage, keys, partition, LEDGER_SCHEMA.names)
    whole = pa.concat_tables(tables) if tables else LEDGER_SCHEMA.empty_table()
    path = folder / "ledger.parquet"
    pq.write_table(whole.sort_by("doc_id").cast(LEDGER_SCHEMA), path, compression="zstd")
    return publish_file(storage, key, path)


def live_documents(storage: Storage, files: Sequence[FileRecord], documents_key: str) -> pa.Table:
    """What the ledger knows of the documents of one object, LEDGER_SCHEMA."""
    tables = [
        pq.read_table(storage.local(file.key, file.sha256), filters=[("documents_key", "=", documents_key)])
        for file in files
    ]
    return pa.concat_tables(tables) if tables else LEDGER_SCHEMA.empty_table()
