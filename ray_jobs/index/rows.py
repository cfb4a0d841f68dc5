"""The rows of a shard: chunk text, identity, span and typed metadata in one memory-mapped Arrow file.

Guaranteed: row number = position in the file = position in vectors.f16 = id in the FAISS index; a look-up reads only
the rows asked for. Rows of one document are adjacent and in order of ordinal. Not guaranteed: any order of documents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ray_jobs.corpus.metadata import Schema, arrow_schema
from ray_jobs.errors import CorruptError

# Arrow gathers rows from many record batches at a cost that only many rows repay; up to here each is read by itself.
FEW_ROWS = 64

ROW_FIELDS: tuple[pa.Field, ...] = (
    pa.field("document", pa.int32(), nullable=False),  # number of the document inside the shard
    pa.field("doc_id", pa.string(), nullable=False),
    pa.field("version", pa.binary(16), nullable=False),
    pa.field("ordinal", pa.int32(), nullable=False),
    pa.field("start", pa.int32(), nullable=False),  # code points into the stored text
    pa.field("end", pa.int32(), nullable=False),
    pa.field("page", pa.int32()),  # on which the chunk starts, from 1
    pa.field("page_breaks", pa.list_(pa.int32()), nullable=False),  # where further pages start inside it, code points
    pa.field("heading", pa.string(), nullable=False),
    pa.field("title", pa.string(), nullable=False),
    pa.field("text", pa.string(), nullable=False),
    pa.field("source", pa.string(), nullable=False),
)


def row_schema(metadata: Schema) -> pa.Schema:
    """The Arrow schema of rows.arrow for an index with these metadata columns."""
    return pa.schema([*ROW_FIELDS, pa.field("metadata", arrow_schema(metadata))])


def conformed(table: pa.Table, metadata: Schema) -> pa.Table:
    """Rows with these metadata columns, of which `table` may lack some."""
    stored = table.column("metadata").combine_chunks()
    have = {stored.type.field(n).name for n in range(stored.type.num_fields)}
    columns = [
        pa.compute.struct_field(stored, name) if name in have else pa.nulls(len(stored), kind.type)
        for name, kind in ((field.name, field) for field in arrow_schema(metadata))
    ]
    fields = list(arrow_schema(metadata))
    made = pa.StructArray.from_arrays(columns, fields=fields) if fields else pa.array([{}] * len(stored), pa.struct([]))
    place = table.column_names.index("metadata")
    return table.set_column(place, "metadata", made)


class RowWriter:
    """Appends tables of rows to one Arrow IPC file."""

    def __init__(self, path: Path, metadata: Schema) -> None:
        self.schema = row_schema(metadata)
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, self.schema)
        self.rows = 0

    def append(self, table: pa.Table) -> None:
        """Write the rows of `table`, which has the schema of the file."""
        self._writer.write_table(table.cast(self.schema))
        self.rows += table.num_rows

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
        self._sink.close()


class Rows:
    """Memory-mapped rows of one shard."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self._batches = table.to_batches()
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])
        self.documents: npt.NDArray[np.int32] = table.column("document").combine_chunks().to_numpy(zero_copy_only=False)

    @classmethod
    def open(cls, path: Path) -> Rows:
        """Map the file; raises CorruptError when it is not rows of a shard."""
        try:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            return cls(table)
        except (pa.ArrowInvalid, KeyError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise CorruptError(f"{path}: not the rows of a shard ({reason}); restore the file from a backup") from None

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def keys(self, rows: npt.NDArray[np.int64]) -> tuple[list[str], list[int]]:
        """The (doc_id, ordinal) of `rows`, the order in which equal scores are listed."""
        found = self.take(rows, ["doc_id", "ordinal"])
        return [row["doc_id"] for row in found], [row["ordinal"] for row in found]

    def take(self, rows: npt.NDArray[np.int64], columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The rows at these positions as dictionaries, whole or with some columns."""
        with _readable():
            if len(rows) <= FEW_ROWS:
                return [self._row(row, columns or self.table.column_names) for row in rows.tolist()]
            table = self.table if columns is None else self.table.select(columns)
            found: list[dict[str, Any]] = table.take(pa.array(rows)).to_pylist()
            return found

    def _row(self, row: int, columns: Sequence[str]) -> dict[str, Any]:
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        batch, place = self._batches[number], row - int(self._starts[number])
        return {name: batch.column(name)[place].as_py() for name in columns}


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (UnicodeDecodeError, pa.ArrowException) as error:
        raise CorruptError(
            f"rows of a shard cannot be read ({error}); try 'tandem index verify', restore the shard or ingest again"
        ) from None


class RowReader:
    """Rows of all shards of a snapshot by (shard, row), each shard opened when it is first asked for."""

    def __init__(self, open_rows: Callable[[int], Rows]) -> None:
        self._open = open_rows
        self._opened: dict[int, Rows] = {}

    def keys(self, shards: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> tuple[list[str], list[int]]:
        """doc_id and ordinal of each (shard, row), both (n,)."""
        doc_ids, ordinals = [""] * len(rows), [0] * len(rows)
        for number, positions in self._by_shard(shards):
            found = self._rows(number).keys(rows[positions])
            for position, doc_id, ordinal in zip(positions, *found, strict=True):
                doc_ids[position], ordinals[position] = doc_id, ordinal
        return doc_ids, ordinals

    def fetch(self, shards: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> list[Mapping[str, Any]]:
        """The stored row of each (shard, row), both (n,)."""
        found: list[Mapping[str, Any]] = [{}] * len(rows)
        for number, positions in self._by_shard(shards):
            for position, row in zip(positions, self._rows(number).take(rows[positions]), strict=True):
                found[position] = row
        return found

    def _rows(self, number: int) -> Rows:
        if number not in self._opened:
            self._opened[number] = self._open(number)
        return self._opened[number]

    @staticmethod
    def _by_shard(shards: npt.NDArray[np.int64]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        for number in np.unique(shards).tolist():
            yield number, np.flatnonzero(shards == number)
