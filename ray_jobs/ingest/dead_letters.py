"""Dead letters: what could not be indexed, each with its place and its reason, one of REASONS.

Guaranteed: whatever a file holds, what is said of it can be stored and printed, in bounded memory, however many letters
there are. A snapshot's letters are of the sources as they were last read.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ray_jobs.corpus.metadata import clean_text
from ray_jobs.corpus.reasons import Reason
from ray_jobs.index import layout
from ray_jobs.index.manifest import FileRecord
from ray_jobs.storage import Storage, new_id, sha256_of

DEAD_LETTER_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("doc_id", pa.string()),
        pa.field("locator", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
    ]
)
Among = Callable[[Collection[str]], Collection[str]]
"""Which of some sources are meant."""
LONGEST_MESSAGE = 500  # characters; what it quotes may be a whole file
_WRITTEN_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One thing that could not be indexed."""

    source: str
    doc_id: str | None
    locator: str  # where in the source
    reason: Reason
    message: str  # a sentence for people


@dataclass
class DeadLetterFile:
    """The dead letters of one group, in a file below `folder`, written as they come."""

    folder: Path
    _held: list[dict[str, str | None]] = field(default_factory=list)
    _writer: pq.ParquetWriter | None = None

    def add(self, letter: DeadLetter) -> None:
        """Add one."""
        fields = asdict(letter)
        for name in ("locator", "message"):
            fields[name] = clean_text(fields[name][:LONGEST_MESSAGE])
        self._held.append(fields)
        if len(self._held) == _WRITTEN_AT_ONCE:
            self._write()

    def publish(self, storage: Storage, index: str) -> FileRecord | None:
        """Store them as one object of the index; None when there are none."""
        if self._held:
            self._write()
        if self._writer is None:
            return None
        self._writer.close()
        return publish_file(storage, layout.dead_letters(index, new_id()), self._path)

    def _write(self) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, DEAD_LETTER_SCHEMA, compression="zstd")
        self._writer.write_table(pa.Table.from_pylist(self._held, schema=DEAD_LETTER_SCHEMA))
        self._held.clear()

    @property
    def _path(self) -> Path:
        return self.folder / "dead_letters.parquet"


def write_dead_letters(storage: Storage, index: str, letters: Sequence[DeadLetter], folder: Path) -> FileRecord | None:
    """Store `letters` as one object of the index; None when there are none."""
    file = DeadLetterFile(folder)
    for letter in letters:
        file.add(letter)
    return file.publish(storage, index)


def without_sources(storage: Storage, index: str, records: Sequence[FileRecord], among: Among) -> Iterator[FileRecord]:
    """The objects of `records`, those that hold letters of the sources meant by `among` written anew without them."""
    for record in records:
        table = _read(storage, record)
        rest = table.filter(pc.invert(_of(table, among)))
        if rest.num_rows == table.num_rows:
            yield record
        elif rest.num_rows:
            with storage.scratch() as folder:
                path = folder / "dead_letters.parquet"
                pq.write_table(rest, path, compression="zstd")
                yield publish_file(storage, layout.dead_letters(index, new_id()), path)


def differ(storage: Storage, one: Sequence[FileRecord], other: Sequence[FileRecord], among: Among) -> bool:
    """Whether what `one` and `other` say of the sources meant by `among` differs in more than words."""
    return _places(storage, one, among) != _places(storage, other, among)


def sources_of(storage: Storage, records: Sequence[FileRecord]) -> Iterator[str]:
    """The sources of which something could not be indexed; once for each object that speaks of them."""
    for record in records:
        yield from pc.unique(_read(storage, record, ["source"]).column("source")).to_pylist()


def count_reasons(storage: Storage, records: Sequence[FileRecord]) -> Counter[str]:
    """How many letters there are of each reason."""
    found: Counter[str] = Counter()
    for record in records:
        for pair in _read(storage, record, ["reason"]).column("reason").value_counts().to_pylist():
            found[pair["values"]] += pair["counts"]
    return found


def read_letters(storage: Storage, records: Sequence[FileRecord]) -> Iterator[DeadLetter]:
    """Every letter, object by object."""
    for record in records:
        for batch in _read(storage, record).to_batches(_WRITTEN_AT_ONCE):
            yield from (DeadLetter(**row) for row in batch.to_pylist())


def publish_file(storage: Storage, key: str, path: Path) -> FileRecord:
    """Upload a finished file and describe it."""
    record = FileRecord(key=key, size=path.stat().st_size, sha256=sha256_of(path))
    storage.upload(key, path)
    return record


def _read(storage: Storage, record: FileRecord, columns: list[str] | None = None) -> pa.Table:
    return pq.read_table(storage.local(record.key, record.sha256), columns=columns)


def _places(storage: Storage, records: Sequence[FileRecord], among: Among) -> int:
    """A hash of what the letters say, in any order: the sum of hashes of each (Clarke et al. 2003, MSet-Add-Hash)."""
    found = 0
    for record in records:
        table = _read(storage, record, ["source", "locator", "reason"])
        for row in table.filter(_of(table, among)).to_pylist():
            digest = hashlib.sha256(repr(tuple(row.values())).encode()).digest()
            found = (found + int.from_bytes(digest, "little")) % (1 << 256)
    return found


def _of(table: pa.Table, among: Among) -> pa.ChunkedArray:
    """Which letters are of the sources that are meant."""
    meant = among(pc.unique(table.column("source")).to_pylist())
    return pc.is_in(table.column("source"), value_set=pa.array(sorted(meant), pa.string()))
