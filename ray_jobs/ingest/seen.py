"""What a snapshot knows of the files that it was made from, so that the next run opens only those that have changed.

Guaranteed: a file is unchanged where its identity, size and modification mark are those that were seen; every listed
file is new, changed or unchanged; a file that is listed no more is forgotten only where its documents are removed.
Not guaranteed: that a file which was changed without a trace in size and mark is noticed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.corpus.sources import SourceFile
from ray_jobs.index import layout
from ray_jobs.index.manifest import FileRecord
from ray_jobs.ingest.dead_letters import publish_file
from ray_jobs.storage import Storage, new_id

SEEN_SCHEMA = pa.schema(
    [
        pa.field("source_name", pa.string(), nullable=False),  # of the SOURCE argument
        pa.field("source", pa.string(), nullable=False),  # of the file
        pa.field("size", pa.int64(), nullable=False),  # bytes
        pa.field("modified", pa.string(), nullable=False),
        pa.field("failed", pa.bool_(), nullable=False),  # something of it could not be indexed
    ]
)


@dataclass(frozen=True)
class Changes:
    """What has become of the files of the SOURCE arguments."""

    listed: tuple[SourceFile, ...]
    to_read: tuple[SourceFile, ...]  # new and changed ones
    vanished: tuple[str, ...]  # seen, and listed no more

    @property
    def unchanged(self) -> int:
        """Files that need not be opened."""
        return len(self.listed) - len(self.to_read)


def compare(listed: Sequence[SourceFile], seen: pa.Table, again: Collection[str] = ()) -> Changes:
    """Tell the files that must be read from those that were seen as they are; `seen` has SEEN_SCHEMA.

    Those in `again` are read whatever was seen of them.
    """
    names = {file.source for file in listed}
    known = {row["source"]: (row["size"], row["modified"]) for row in _of(seen, names).to_pylist()}
    return Changes(
        listed=tuple(listed),
        to_read=tuple(
            file for file in listed if file.doc_id in again or known.get(file.doc_id) != (file.size, file.modified)
        ),
        vanished=tuple(sorted(known.keys() - {file.doc_id for file in listed})),
    )


def failed(seen: pa.Table) -> set[str]:
    """The files of which something could not be indexed; `seen` has SEEN_SCHEMA."""
    return set(seen.filter(seen.column("failed")).column("source").to_pylist())


def after(changes: Changes, seen: pa.Table, failing: Collection[str], forget_vanished: bool) -> pa.Table:
    """What is known when the files of `changes` have been read; SEEN_SCHEMA.

    Something failed of those in `failing`, in this run, and still of those that were not read and had failed before.
    """
    failing = {*failing, *(failed(seen) - {file.doc_id for file in changes.to_read})}
    rows = [
        {
            "source_name": file.source,
            "source": file.doc_id,
            "size": file.size,
            "modified": file.modified,
            "failed": file.doc_id in failing,
        }
        for file in changes.listed
    ]
    listed = {file.doc_id for file in changes.listed}
    gone = set(changes.vanished) if forget_vanished else set()
    stayed = (row for row in seen.to_pylist() if row["source"] not in listed | gone)
    rows += [{**row, "failed": row["source"] in failing} for row in stayed]
    return pa.Table.from_pylist(rows, schema=SEEN_SCHEMA)


def read(storage: Storage, record: FileRecord | None) -> pa.Table:
    """What a snapshot has seen; empty for None."""
    if record is None:
        return SEEN_SCHEMA.empty_table()
    return pq.read_table(storage.local(record.key, record.sha256))


def publish(storage: Storage, index: str, seen: pa.Table) -> FileRecord:
    """Store it for the next run."""
    with storage.scratch() as folder:
        path = folder / "seen.parquet"
        pq.write_table(seen, path, compression="zstd")
        return publish_file(storage, layout.seen(index, new_id()), path)


def _of(seen: pa.Table, names: Collection[str]) -> pa.Table:
    return seen.filter(pa.compute.is_in(seen.column("source_name"), value_set=pa.array(sorted(names), pa.string())))
