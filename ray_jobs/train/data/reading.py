"""Read raw rows out of a part of a file: JSON Lines or Parquet, streamed.

Guaranteed: a line belongs to the part in which its first byte lies, so the parts of a file together yield every row
once, in order, wherever it was cut; rows are numbered from 1 inside the part, blank lines included, so that the numbers
of a part and the count of those before it give the row's number in the file. A line that cannot be read costs only
itself. Memory: one line, or one Parquet row group. Not guaranteed: anything of a file that is damaged as a whole; that
is a CorruptError, since nobody knows how many rows it cost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.corpus.formats import compression_of
from ray_jobs.corpus.planning import SourcePart
from ray_jobs.corpus.readers import open_file
from ray_jobs.errors import CorruptError, NotFoundError
from ray_jobs.train.data.raw_row import WrongRowError

MAX_LINE_BYTES = 64 << 20
ROWS_AT_ONCE = 256

Raw = Mapping[str, object] | WrongRowError | None


def read_rows(part: SourcePart, wanted: frozenset[str]) -> Iterator[tuple[int, Raw]]:
    """Yield (number inside the part, row): its columns, what is wrong with it, or None for a blank line.

    Of a Parquet file only the columns `wanted` are read. Raises NotFoundError for a file that vanished, CorruptError
    for one that is damaged.
    """
    try:
        with open_file(part.file) as stream:
            yield from _parquet(stream, part, wanted) if part.file.format == "parquet" else _lines(stream, part)
    except FileNotFoundError:
        raise NotFoundError(f"input={part.file.uri}: it was there when it was listed, and is not any more") from None
    except (pa.ArrowException, OSError, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CorruptError(f"input={part.file.uri}: reading stopped inside the file ({reason}); restore it") from error


def _parquet(stream: BinaryIO, part: SourcePart, wanted: frozenset[str]) -> Iterator[tuple[int, Raw]]:
    file = pq.ParquetFile(stream)
    # A part that was never cut ends with the size of the file, not with a number of row groups.
    groups = list(range(part.start, min(part.end, file.num_row_groups)))
    columns = [name for name in file.schema_arrow.names if name in wanted]
    number = 0
    for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=groups, columns=columns):
        # Without any column a batch still knows how many rows it has.
        rows = batch.to_pylist() if columns else [{}] * batch.num_rows
        for row in rows:
            number += 1
            yield number, row


def _lines(stream: BinaryIO, part: SourcePart) -> Iterator[tuple[int, Raw]]:
    compressed = compression_of(part.file.uri) is not None
    offset = 0
    if part.start > 0:
        # One byte back: if it is a line feed, the line that starts at part.start is ours.
        stream.seek(part.start - 1)
        offset = part.start - 1 + _rest_of_line(stream)
    number = 0
    while compressed or offset < part.end:
        line = stream.readline(MAX_LINE_BYTES + 1)
        if not line:
            return
        number += 1
        offset += len(line)
        if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            offset += _rest_of_line(stream)
            yield number, WrongRowError("too-long", f"the line is longer than {MAX_LINE_BYTES} bytes")
        else:
            yield number, _parse(line)


def _rest_of_line(stream: BinaryIO) -> int:
    skipped = 0
    while piece := stream.readline(MAX_LINE_BYTES):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def _parse(line: bytes) -> Raw:
    try:
        text = line.decode("utf-8-sig")
        row = json.loads(text) if text.strip() else None
    except UnicodeDecodeError as error:
        return WrongRowError("bad-encoding", f"the line is not UTF-8 (byte {error.start} of it)")
    except (ValueError, RecursionError) as error:
        return WrongRowError("bad-json", f"the line is not JSON: {error}")
    if row is None and text.strip():
        return WrongRowError("not-an-object", "the line holds null: expected an object")
    if row is not None and not isinstance(row, dict):
        return WrongRowError("not-an-object", f"the line holds a {type(row).__name__}: expected an object")
    return row
