"""Read raw rows out of a part of a file: JSON Lines or Parquet, streamed.

Guaranteed: a line belongs to the part in which its first byte lies, so the parts of a file together yield every row
once, in order, wherever it was cut; rows are numbered from 1 inside the part, blank lines included, so that the numbers
of a part and the count of those before it give the row's number in the file. A line that cannot be read costs only
itself. Memory: one line, or one Parquet row group. Not guaranteed: anything of a file that is damaged as a whole; that
is a CorruptError, since nobody knows how many rows it cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.corpus.limits import LINE_BYTES
from ray_jobs.corpus.planning import SourcePart
from ray_jobs.corpus.readers import jsonl, open_file
from ray_jobs.errors import CorruptError, NotFoundError
from ray_jobs.train.data.raw_row import WrongRowError

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
    for number, (_, line) in enumerate(jsonl.lines(stream, part, LINE_BYTES), 1):
        try:
            row: Raw = jsonl.parse(line, LINE_BYTES)
        except jsonl.LineError as error:
            row = WrongRowError(error.reason, str(error))
        yield number, row
