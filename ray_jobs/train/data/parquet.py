"""What a Parquet file of rows holds, without reading its rows."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.errors import UsageError, first_line


def shape(file: Path) -> tuple[frozenset[str], int]:
    """Names of its columns, and how many rows it has; raises UsageError for a file that is no Parquet file."""
    try:
        metadata = pq.read_metadata(file)
        return frozenset(metadata.schema.to_arrow_schema().names), metadata.num_rows
    except pa.ArrowException as error:
        reason = first_line(error)
        raise UsageError(
            f"{str(file)!r} is no Parquet file of rows ({reason}); prepare other files first: tandem prepare FILE "
            "--name NAME, and give that name"
        ) from None
