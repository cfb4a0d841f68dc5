"""Write the splits: the rows that stay, in the order of the inputs, one Parquet file a split.

Guaranteed: the same rows give the same bytes, however they were divided among parts: row groups hold ROWS_A_GROUP rows.
Memory: one batch of staged rows and one row group of each split.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ray_jobs.storage import Storage
from ray_jobs.train.data.candidates import Mask
from ray_jobs.train.data.leakage import Places
from ray_jobs.train.data.splitting import SPLITS
from ray_jobs.train.data.staging import FIRST, StagedPart
from ray_jobs.train.data.validate import Rejected

ROWS_A_GROUP = 1024
_ROWS_AT_ONCE = 1024


class SplitWriter:
    """One split's file, in row groups of one size."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._waiting = schema.empty_table()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._waiting.num_rows:
            self._writer.write_table(self._waiting)
        self._writer.close()

    def add(self, table: pa.Table) -> None:
        """Append rows."""
        self._waiting = pa.concat_tables([self._waiting, table])
        while self._waiting.num_rows >= ROWS_A_GROUP:
            self._writer.write_table(self._waiting.slice(0, ROWS_A_GROUP).combine_chunks(), row_group_size=ROWS_A_GROUP)
            self._waiting = self._waiting.slice(ROWS_A_GROUP)
        self._waiting = self._waiting.combine_chunks()


def write_splits(
    storage: Storage, parts: Sequence[StagedPart], schema: pa.Schema, places: Places, kept: Mask, folder: Path
) -> dict[str, Path]:
    """Write each split's rows to `folder`; `parts` are in order, `places` and `kept` go by position."""
    paths = {name: folder / f"{name}.parquet" for name in SPLITS}
    writers = [SplitWriter(paths[name], schema) for name in SPLITS]
    with writers[0], writers[1], writers[2]:
        position = 0
        for part, first in zip(parts, first_lines(parts), strict=True):
            if not part.rows:
                continue
            file = pq.ParquetFile(storage.local(part.rows_key))
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                table = _renumbered(pa.Table.from_batches([batch]), first).cast(schema)
                here = slice(position, position + table.num_rows)
                for number, writer in enumerate(writers):
                    writer.add(table.filter(pa.array(kept[here] & (places[here] == number))))
                position += table.num_rows
    return paths


def write_rejected(storage: Storage, parts: Sequence[StagedPart], path: Path) -> None:
    """Write every rejection, a line each, in the order of the inputs."""
    with path.open("w", encoding="utf-8") as file:
        for part, first in zip(parts, first_lines(parts), strict=True):
            if part.rejected_key is None:
                continue
            with storage.local(part.rejected_key).open(encoding="utf-8") as staged:
                for line in staged:
                    wrong = json.loads(line)
                    file.write(json.dumps({**wrong, "row": wrong["row"] + first}, ensure_ascii=False) + "\n")


def first_rejected(parts: Sequence[StagedPart]) -> list[Rejected]:
    """The first rejections, numbered in their files."""
    return list(_first(parts))[:FIRST]


def first_lines(parts: Sequence[StagedPart]) -> list[int]:
    """How many lines of the same file come before each part."""
    before: dict[tuple[str, str], int] = {}
    found = []
    for part in parts:
        found.append(before.get((part.set, part.input), 0))
        before[part.set, part.input] = found[-1] + part.lines
    return found


def _first(parts: Sequence[StagedPart]) -> Iterator[Rejected]:
    for part, first in zip(parts, first_lines(parts), strict=True):
        for wrong in part.first:
            yield wrong.model_copy(update={"row": wrong.row + first})


def _renumbered(table: pa.Table, first: int) -> pa.Table:
    place = table.schema.get_field_index("row")
    return table.set_column(place, "row", pc.add(table.column("row"), first))
