"""One shard: written once from groups of embedded chunks, then opened by memory map and searched.

Guaranteed: row i is the same chunk in all four files; a dead row is counted and found by nothing; FAISS holds the
float16 values of vectors.f16, so that the index can be rebuilt from them bit for bit; the same groups in the same order
give the same bytes. Not guaranteed: atomicity; a half-written folder is never named by a manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ray_jobs.corpus.metadata import Schema
from ray_jobs.errors import CorruptError
from ray_jobs.index import layout
from ray_jobs.index.analysis import Analyzer
from ray_jobs.index.deleted import live_rows
from ray_jobs.index.dense import DenseShard
from ray_jobs.index.files import write_faiss
from ray_jobs.index.lexical import LexicalStatistics, score
from ray_jobs.index.manifest import FileRecord, ShardRecord
from ray_jobs.index.merge import Candidates
from ray_jobs.index.postings import FILES as POSTING_FILES
from ray_jobs.index.postings import Postings, merge_postings, write_postings
from ray_jobs.index.quantiser import APART_BYTES, Quantiser, left_out
from ray_jobs.index.rows import Rows, RowWriter, conformed
from ray_jobs.index.vocabulary import Vocabulary, commonest
from ray_jobs.storage import Storage, sha256_of

if TYPE_CHECKING:
    from ray_jobs.index.filters import Filter

_COPIED_ROWS = 16_384  # rows taken from another shard at a time
_ADD_ROWS = 65_536  # vectors converted to float32 and added at a time


@dataclass(frozen=True)
class BuiltShard:
    """A shard on the local disk, not yet in the store."""

    folder: Path
    rows: int
    documents: int
    total_length: int  # terms, for the lexical statistics


def write_shard(
    folder: Path,
    groups: Iterable[tuple[pa.Table, npt.NDArray[np.float16]]],
    template: Path,
    metadata: Schema,
    language: str,
) -> BuiltShard:
    """Write the four parts of a shard into `folder` from (rows, vectors) of each group.

    A table has the columns of `rows.row_schema` except `document`, plus `lexical_text`, what lexical search sees of the
    chunk; vectors are (rows, d) float16. Memory: one group, and the postings and vectors of this shard.
    """
    folder.mkdir(parents=True, exist_ok=True)
    writer = RowWriter(folder / layout.ROWS, metadata)
    documents = 0

    def terms() -> Iterator[list[str]]:
        nonlocal documents
        analyzer = Analyzer(language=language)
        with (folder / layout.VECTORS_F16).open("wb") as file:
            for table, vectors in groups:
                if table.num_rows == 0:
                    continue
                first = table.column("ordinal").to_numpy() == 0
                numbers = pa.array(np.cumsum(first) - 1 + documents, pa.int32())
                documents += int(first.sum())
                numbered = table.drop_columns(["lexical_text"]).add_column(0, "document", numbers)
                writer.append(numbered.select(writer.schema.names))
                file.write(np.ascontiguousarray(vectors).tobytes())
                for text in table.column("lexical_text").to_pylist():
                    yield analyzer.terms(text)

    write_postings(folder / layout.POSTINGS, terms())
    writer.close()
    _write_index(folder, template, writer.rows)
    _, total_length = Postings.open(folder / layout.POSTINGS).total()
    return BuiltShard(folder, writer.rows, documents, total_length)


def rewrite_shard(
    folder: Path, parts: Sequence[tuple[Shard, npt.NDArray[np.int64]]], template: Path, metadata: Schema
) -> BuiltShard:
    """Write rows (n,), ascending, of open shards as one new shard into `folder`: what `write_shard` makes of them.

    Whole documents only. Memory: some thousand rows, and the postings and vectors of the new shard.
    """
    folder.mkdir(parents=True, exist_ok=True)
    writer = RowWriter(folder / layout.ROWS, metadata)
    documents = 0
    with (folder / layout.VECTORS_F16).open("wb") as file:
        for shard, rows in parts:
            for start in range(0, len(rows), _COPIED_ROWS):
                chosen = rows[start : start + _COPIED_ROWS]
                table = conformed(shard.rows.table.take(pa.array(chosen)).combine_chunks(), metadata)
                first = table.column("ordinal").to_numpy() == 0
                numbers = pa.array(np.cumsum(first) - 1 + documents, pa.int32())
                documents += int(first.sum())
                writer.append(table.set_column(0, "document", numbers).select(writer.schema.names))
                file.write(np.ascontiguousarray(shard.dense.vectors[chosen]).tobytes())
    merge_postings(folder / layout.POSTINGS, [(shard.postings, rows) for shard, rows in parts])
    writer.close()
    _write_index(folder, template, writer.rows)
    _, total_length = Postings.open(folder / layout.POSTINGS).total()
    return BuiltShard(folder, writer.rows, documents, total_length)


def _write_index(folder: Path, template: Path, rows: int) -> None:
    import faiss

    index = faiss.read_index(str(template))
    vectors = np.fromfile(folder / layout.VECTORS_F16, np.float16).reshape(rows, index.d)
    for start in range(0, rows, _ADD_ROWS):
        index.add(vectors[start : start + _ADD_ROWS].astype(np.float32))
    with left_out(index, APART_BYTES):
        write_faiss(index, folder / layout.VECTORS_FAISS)


def shard_files() -> list[str]:
    """The roles of a shard's files, as relative paths."""
    return [
        layout.VECTORS_FAISS,
        layout.VECTORS_F16,
        layout.ROWS,
        *(f"{layout.POSTINGS}/{name}" for name in POSTING_FILES),
    ]


def publish_shard(storage: Storage, index: str, shard_id: str, built: BuiltShard) -> ShardRecord:
    """Upload the files of a shard and describe them; the shard is invisible until a manifest names it."""
    files = {}
    for name in shard_files():
        path = built.folder / name
        key = f"{layout.shard(index, shard_id)}/{name}"
        files[name] = FileRecord(key=key, size=path.stat().st_size, sha256=sha256_of(path))
        storage.upload(key, path)
    return ShardRecord(id=shard_id, files=files, rows=built.rows, documents=built.documents)


def _local(storage: Storage, file: FileRecord) -> Path:
    """A local file with the bytes of the manifest; raises CorruptError, NotFoundError."""
    try:
        return storage.local(file.key, file.sha256)
    except CorruptError:
        size, _ = storage.fingerprint(file.key)
        if size == file.size:
            raise
        raise CorruptError(
            f"{storage.uri}/{file.key}: {size} bytes, the manifest says {file.size}; restore the file or roll back to "
            "another snapshot"
        ) from None


class Shard:
    """An open shard: dense and lexical candidates, filters and rows."""

    def __init__(
        self,
        number: int,
        record: ShardRecord,
        dense: DenseShard,
        rows: Rows,
        postings: Postings,
        live: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        self.number = number
        self.record = record
        self.dense = dense
        self.rows = rows
        self.postings = postings
        self.live = live
        """The rows that are not dead, (rows,); None where all are live."""

    @classmethod
    def open(
        cls, storage: Storage, record: ShardRecord, number: int, dimension: int, quantiser: Quantiser | None = None
    ) -> Shard:
        """Map the files of one shard; `number` is its position in the manifest.

        `quantiser` is that of the template; a shard that is opened without it gives rows, words and stored vectors.

        Raises CorruptError when sizes or row counts are not those of the manifest, NotFoundError for a missing file.
        """
        paths = {name: _local(storage, file) for name, file in record.files.items()}
        dense = DenseShard.open(paths[layout.VECTORS_FAISS], paths[layout.VECTORS_F16], dimension, quantiser)
        rows = Rows.open(paths[layout.ROWS])
        postings = Postings.map({name: paths[f"{layout.POSTINGS}/{name}"] for name in POSTING_FILES})
        if not len(dense) == len(rows) == postings.row_count == record.rows:
            raise CorruptError(
                f"shard={record.id}: {len(dense)} vectors, {len(rows)} rows, {postings.row_count} posting lengths; "
                f"expected {record.rows} of each; restore the shard or roll back to another snapshot"
            )
        return cls(number, record, dense, rows, postings, live_rows(storage, record))

    def under(self, storage: Storage, record: ShardRecord, number: int) -> Shard:
        """The same files in another snapshot, where it may have another place and other dead rows."""
        live = self.live if record.deleted == self.record.deleted else live_rows(storage, record)
        return Shard(number, record, self.dense, self.rows, self.postings, live)

    @property
    def live_count(self) -> int:
        """How many rows are not dead."""
        return self.record.rows - self.record.dead_rows

    @cached_property
    def live_rows(self) -> npt.NDArray[np.int64]:
        """The rows that are not dead, (live rows,), ascending."""
        return np.arange(self.record.rows) if self.live is None else np.flatnonzero(self.live)

    def allowed(self, where: Filter, metadata: Schema) -> npt.NDArray[np.bool_]:
        """The live rows that `where` lets through, (rows,)."""
        from ray_jobs.index.filters import evaluate

        passing = evaluate(where, self.rows.table, metadata)
        return passing if self.live is None else passing & self.live

    def statistics(self, terms: Iterable[str]) -> LexicalStatistics:
        """The part of this shard in the statistics that BM25 needs."""
        return LexicalStatistics.of(self.postings, terms, self.live)

    def vocabulary(self, limit: int) -> Vocabulary:
        """The commonest terms of this shard, at most `limit`."""
        return commonest(self.postings, limit, self.live)

    def find_lexical(
        self,
        queries: list[list[str]],
        statistics: LexicalStatistics,
        count: int,
        by_document: bool,
        allowed: npt.NDArray[np.bool_] | None,
    ) -> Candidates:
        """Candidates by BM25 for analysed queries, enough to hold the best `count` competitors of this shard."""
        parts = []
        for position, terms in enumerate(queries):
            row, value = self._lexical_rows(terms, statistics, count, by_document, allowed)
            parts.append((np.full(len(row), position, np.int64), row, value))
        query, row, value = (np.concatenate(column) for column in zip(*parts, strict=True))
        shard = np.full(len(row), self.number, np.int64)
        return Candidates(query, shard, row, self.rows.documents[row].astype(np.int64), value, value)

    def _lexical_rows(
        self,
        terms: list[str],
        statistics: LexicalStatistics,
        count: int,
        by_document: bool,
        allowed: npt.NDArray[np.bool_] | None,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        wanted = count if not by_document else 2 * count
        while True:
            try:
                row, value = score(self.postings, terms, statistics, allowed, wanted)
            except IndexError:
                raise CorruptError(
                    f"shard={self.record.id}: postings name rows that it does not have; try 'tandem index verify', "
                    f"restore the shard or ingest again"
                ) from None
            enough = not by_document or len(np.unique(self.rows.documents[row])) >= count
            if enough or len(row) < wanted:
                return row, value
            wanted *= 4
