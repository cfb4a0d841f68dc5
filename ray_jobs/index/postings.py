"""Which rows of one shard hold a term, and how often: raw counts on disk, memory-mapped.

Guaranteed: nothing that depends on other shards is stored (no idf, no score), so postings are written once and stay
right whatever is added or deleted elsewhere. The same rows give the same bytes. Rows of a term are ascending.

Not guaranteed: frequencies above 65,535 in one row (they saturate; the row's length does not). Writing is not atomic:
the shard's folder becomes visible through the manifest only.

    terms.arrow        term (UTF-8, sorted by bytes), start (first posting; the next term's start ends it)
    rows.i32           row of each posting, little-endian int32
    frequencies.u16    occurrences of the term in that row, little-endian uint16
    lengths.i32        number of terms in each row, little-endian int32
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa

from ray_jobs.errors import CorruptError, NotFoundError
from ray_jobs.index.files import write_array

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

FILES = ("terms.arrow", "rows.i32", "frequencies.u16", "lengths.i32")

_Scalar = TypeVar("_Scalar", bound=np.generic)

_TERMS_SCHEMA = pa.schema([("term", pa.string()), ("start", pa.int64())])
_BATCH_TERMS = 1 << 22
_POSITIONS_KEPT = 4_096  # of terms looked up, some 100 bytes each
_MAX_FREQUENCY = np.iinfo(np.uint16).max


def write_postings(folder: Path, documents_terms: Iterable[Sequence[str]]) -> None:
    """Write the postings of a shard into ``folder`` (created if absent); row i holds the i-th sequence of terms.

    ``documents_terms`` is read once, as a stream. Memory: the vocabulary, and some 10 bytes a posting.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _Vocabulary()
    lengths = array("i")
    runs: list[_Run] = []
    pending = array("i")
    first_row = 0
    for terms in documents_terms:
        pending.extend(map(vocabulary.__getitem__, terms))
        lengths.append(len(terms))
        if len(pending) >= _BATCH_TERMS:
            runs.append(_count(pending, lengths, first_row))
            pending, first_row = array("i"), len(lengths)
    runs.append(_count(pending, lengths, first_row))
    _write(folder, vocabulary, runs, np.asarray(lengths, "<i4"))


def merge_postings(folder: Path, parts: Iterable[tuple[Postings, npt.NDArray[np.int64]]]) -> None:
    """Write the postings of rows (n,), ascending, of other shards, one shard after the other, into ``folder``.

    To the byte what `write_postings` writes for these rows. Memory: the vocabulary, and some 30 bytes a posting.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _Vocabulary()
    runs: list[_Run] = []
    lengths: list[npt.NDArray[np.int32]] = [np.empty(0, np.int32)]
    first_row = 0
    for postings, rows in parts:
        runs.append(postings.run_of(rows, first_row, vocabulary))
        lengths.append(postings.lengths[rows])
        first_row += len(rows)
    _write(folder, vocabulary, runs, np.concatenate(lengths).astype("<i4"))


def _write(folder: Path, vocabulary: _Vocabulary, runs: list[_Run], lengths: npt.NDArray[np.int32]) -> None:
    runs = [_NOTHING, *runs]
    # Arrow and Python agree: UTF-8 sorts by bytes as text sorts by code points.
    terms_sorted = sorted(vocabulary)
    rank = np.empty(len(vocabulary), np.int32)
    rank[[vocabulary[term] for term in terms_sorted]] = np.arange(len(vocabulary), dtype=np.int32)
    term_of_posting = rank[np.concatenate([run.terms for run in runs])]
    order = np.argsort(term_of_posting, kind="stable")  # runs come in row order: stable keeps rows ascending
    counts = np.bincount(term_of_posting, minlength=len(vocabulary))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]) if len(counts) else np.empty(0, np.int64)

    write_array(np.concatenate([run.rows for run in runs])[order].astype("<i4"), folder / "rows.i32")
    write_array(
        np.concatenate([run.frequencies for run in runs])[order].astype("<u2"),
        folder / "frequencies.u16",
    )
    write_array(lengths, folder / "lengths.i32")
    table = pa.table([pa.array(terms_sorted, pa.string()), pa.array(starts, pa.int64())], schema=_TERMS_SCHEMA)
    with pa.OSFile(str(folder / "terms.arrow"), "wb") as sink, pa.ipc.new_file(sink, _TERMS_SCHEMA) as writer:
        writer.write_table(table, max_chunksize=max(1, len(terms_sorted)))


class Postings:
    """The postings of one shard, memory-mapped; read-only, safe to share between threads."""

    def __init__(
        self,
        terms: pa.Array,
        starts: npt.NDArray[np.int64],
        rows: npt.NDArray[np.int32],
        frequencies: npt.NDArray[np.uint16],
        lengths: npt.NDArray[np.int32],
    ) -> None:
        # A look-up touches a few terms: read in place, they cost a twentieth of as many Arrow scalars.
        _, ends, letters = terms.buffers()
        self._ends = memoryview(ends).cast("i")[terms.offset :] if len(terms) else memoryview(b"")
        self._letters = memoryview(letters or b"")
        # A search asks for each term twice, and queries have terms in common.
        self._position = lru_cache(_POSITIONS_KEPT)(self._find)
        self.term_count = len(terms)
        """Number of distinct terms."""
        self._starts = starts
        self._rows = rows
        self._frequencies = frequencies
        self.lengths = lengths
        """Number of terms of each row: int32 (rows,)."""

    @classmethod
    def open(cls, folder: Path) -> Postings:
        """Map the files that write_postings left in ``folder``; raises as `map` does."""
        return cls.map({name: folder / name for name in FILES})

    @classmethod
    def map(cls, paths: Mapping[str, Path]) -> Postings:
        """Map the files of postings, each by its name in FILES, wherever it lies.

        Raises NotFoundError if one is missing, CorruptError if their sizes contradict each other.
        """
        for name, path in paths.items():
            if not path.is_file():
                raise NotFoundError(f"postings = {path}: {name} is missing; run `tandem index verify` on the index")
        terms_file = paths["terms.arrow"]
        try:
            table = pa.ipc.open_file(pa.memory_map(str(terms_file))).read_all()
        except pa.ArrowInvalid as error:
            raise CorruptError(f"postings = {terms_file}: this is no Arrow file ({error}); rebuild the index") from None
        rows = _map(paths["rows.i32"], np.int32)
        frequencies = _map(paths["frequencies.u16"], np.uint16)
        starts = table.column("start").to_numpy() if table.num_rows else np.empty(0, np.int64)
        if len(rows) != len(frequencies) or (len(starts) and not 0 <= starts[-1] < len(rows)):
            raise CorruptError(
                f"postings = {terms_file}: files of different lengths; restore the shard or rebuild the index"
            )
        terms = table.column("term").combine_chunks() if table.num_rows else pa.array([], pa.string())
        return cls(terms, np.append(starts, len(rows)), rows, frequencies, _map(paths["lengths.i32"], np.int32))

    @property
    def row_count(self) -> int:
        """Rows in the shard, dead ones and those without any term included."""
        return len(self.lengths)

    def lookup(self, term: str) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint16]]:
        """Rows that hold ``term``, ascending, and how often each does: (df,) and (df,); empty for an unknown term."""
        position = self._position(term)
        if position is None:
            return self._rows[:0], self._frequencies[:0]
        found = slice(int(self._starts[position]), int(self._starts[position + 1]))
        return self._rows[found], self._frequencies[found]

    def document_frequency(self, term: str, alive: npt.NDArray[np.bool_] | None = None) -> int:
        """Number of rows that hold ``term``; only those where ``alive`` (rows,) is true, if given."""
        rows, _ = self.lookup(term)
        return len(rows) if alive is None else int(np.count_nonzero(alive[rows]))

    def commonest(self, limit: int, alive: npt.NDArray[np.bool_] | None = None) -> dict[str, int]:
        """The `limit` terms that most rows hold, and how many rows hold each; equal ones by their bytes.

        Only rows where `alive` (rows,) is true count, if given.
        """
        frequencies = np.diff(self._starts)
        if alive is not None and len(frequencies):
            frequencies = np.add.reduceat(alive[self._rows], self._starts[:-1], dtype=np.int64)
        chosen = np.argsort(-frequencies, kind="stable")[:limit]
        return {self._term(position).decode(): int(frequencies[position]) for position in np.sort(chosen).tolist()}

    def run_of(self, rows: npt.NDArray[np.int64], first_row: int, vocabulary: dict[str, int]) -> _Run:
        """The postings of some rows (n,), ascending, which become rows `first_row` and so on of another shard.

        Terms are numbered by `vocabulary`, which numbers those that it lacks.
        """
        place = np.full(self.row_count, -1, np.int32)
        place[rows] = np.arange(first_row, first_row + len(rows), dtype=np.int32)
        target = place[self._rows]
        kept = target >= 0
        own = np.repeat(np.arange(self.term_count, dtype=np.int32), np.diff(self._starts))[kept]
        numbers = np.empty(self.term_count, np.int32)
        present = np.unique(own)
        numbers[present] = [vocabulary[self._term(term).decode()] for term in present.tolist()]
        order = np.argsort(target[kept], kind="stable")
        return _Run(numbers[own][order], target[kept][order], self._frequencies[kept][order])

    def total(self, alive: npt.NDArray[np.bool_] | None = None) -> tuple[int, int]:
        """Rows and the sum of their lengths; only those where ``alive`` (rows,) is true, if given."""
        if alive is None:
            return len(self.lengths), self._total_length
        lengths = self.lengths[alive]
        return len(lengths), int(lengths.sum(dtype=np.int64))

    @cached_property
    def _total_length(self) -> int:
        return int(self.lengths.sum(dtype=np.int64))

    def _find(self, term: str) -> int | None:
        wanted = term.encode()
        position = bisect_left(range(self.term_count), wanted, key=self._term)
        return position if position < self.term_count and self._term(position) == wanted else None

    def _term(self, position: int) -> bytes:
        return bytes(self._letters[self._ends[position] : self._ends[position + 1]])


class _Vocabulary(dict[str, int]):
    """Numbers terms in the order in which they are first seen."""

    def __missing__(self, term: str) -> int:
        self[term] = number = len(self)
        return number


@dataclass(frozen=True)
class _Run:
    """Postings of consecutive rows, ascending by row."""

    terms: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int32]
    frequencies: npt.NDArray[np.uint16]


_NOTHING = _Run(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.uint16))


def _count(pending: array[int], lengths: array[int], first_row: int) -> _Run:
    terms = np.asarray(pending, np.int64)
    rows = np.repeat(np.arange(first_row, len(lengths), dtype=np.int64), np.asarray(lengths[first_row:], np.int64))
    keys, counts = np.unique(rows << 32 | terms, return_counts=True)
    frequencies = np.minimum(counts, _MAX_FREQUENCY).astype(np.uint16)
    return _Run((keys & 0xFFFFFFFF).astype(np.int32), (keys >> 32).astype(np.int32), frequencies)


def _map(path: Path, kind: type[_Scalar]) -> npt.NDArray[_Scalar]:
    stored = np.dtype(kind).newbyteorder("<")
    size, remainder = divmod(path.stat().st_size, stored.itemsize)
    if remainder:
        raise CorruptError(
            f"postings = {path}: cut off in the middle of a value; restore the shard or rebuild the index"
        )
    # An empty file cannot be mapped.
    return np.memmap(path, stored, "r", shape=(size,)).view(np.ndarray) if size else np.empty(0, kind)
