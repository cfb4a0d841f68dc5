"""Read Parquet: one document a row, streamed by row group.

Guaranteed: memory is bounded by a batch of rows and one page of each column. Binary columns are left out unread
(images, embeddings); timestamps are read as UTC microseconds. Not guaranteed: that anything of a damaged row group is
read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.corpus.document import RawDocument, Reject
from ray_jobs.corpus.limits import Limits
from ray_jobs.corpus.planning import SourcePart
from ray_jobs.corpus.readers.rows import missing_text, raw_document

ROWS_AT_ONCE = 1024
BYTES_AT_ONCE = 16 << 20  # decoded; fewer rows where they are long
READ_BYTES = 1 << 20  # of a column at a time, where the whole of it in a row group may be large


def read(stream: BinaryIO, part: SourcePart, limits: Limits) -> Iterator[RawDocument | Reject]:
    """Yield the document or the Reject of each row of the part; one Reject if there is no column `text`."""
    try:
        table = pq.ParquetFile(stream, buffer_size=READ_BYTES)
    except pa.ArrowInvalid as error:
        yield Reject("file", "unreadable", f"this is not a Parquet file: {error}")
        return
    schema = table.schema_arrow
    if "text" not in schema.names:
        if part.start == 0:
            yield Reject("file", "no-text", missing_text(schema.names))
        return
    groups = range(part.start, min(part.end, table.num_row_groups))
    number = sum(table.metadata.row_group(i).num_rows for i in range(part.start))
    columns = [field.name for field in schema if not _is_binary(field.type)]
    at_once = _rows_at_once(table.metadata, groups)
    for batch in table.iter_batches(at_once, row_groups=list(groups), columns=columns):
        for row in _microseconds(batch).to_pylist():
            number += 1
            found = raw_document(row, f"row {number}")
            if isinstance(found, RawDocument) and found.id is None:
                found = RawDocument(found.text, f"{part.file.doc_id}#{number}", found.title, found.metadata)
            yield found


def _rows_at_once(footer: pq.FileMetaData, groups: range) -> int:
    """Rows of a batch: as many as are some BYTES_AT_ONCE, by the average of the row groups."""
    rows: int = sum(footer.row_group(i).num_rows for i in groups)
    size: int = sum(footer.row_group(i).total_byte_size for i in groups)
    return max(1, min(ROWS_AT_ONCE, BYTES_AT_ONCE * rows // max(1, size)))


def row_group_bytes(stream: BinaryIO) -> list[int]:
    """Return the compressed size of each row group in bytes; [] for a file that is no Parquet, which stays whole."""
    try:
        footer = pq.ParquetFile(stream).metadata
    except pa.ArrowInvalid:
        return []
    return [
        sum(footer.row_group(i).column(j).total_compressed_size for j in range(footer.num_columns))
        for i in range(footer.num_row_groups)
    ]


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _microseconds(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Cast nanosecond timestamps, which Python has no type for."""
    fields = [
        field.with_type(pa.timestamp("us", field.type.tz)) if pa.types.is_timestamp(field.type) else field
        for field in batch.schema
    ]
    return batch.cast(pa.schema(fields), safe=False)
