"""The manifest: what a snapshot is made of, and the one key whose creation publishes it.

Guaranteed: a snapshot exists exactly when its manifest does; `commit` writes a number at most once, whoever races;
a manifest that is not what this version of Tandem writes is refused with its place, never half-read.
Not guaranteed: that the objects it names are intact; see `verify.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ray_jobs.corpus.metadata import ColumnType
from ray_jobs.errors import ConflictError, CorruptError, NotFoundError
from ray_jobs.index import layout
from ray_jobs.models.embedder import EmbedderIdentity
from ray_jobs.storage import Storage

FORMAT_VERSION: Literal[2] = 2
OVERSAMPLING = 2  # candidates a hit that are rescored, where nothing else was measured


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRecord(_Frozen):
    """One immutable object and what its bytes must be."""

    key: str
    size: int  # bytes
    sha256: str


class SketchRecord(_Frozen):
    """What finds the documents of one object that are like others."""

    documents: str  # key of the object that holds their text
    bands: FileRecord
    sketches: FileRecord


class ShardRecord(_Frozen):
    """One shard: its files by role, and its rows."""

    id: str
    files: dict[str, FileRecord]  # "vectors.faiss", "vectors.f16", "rows.arrow", "postings/..."
    rows: int
    dead_rows: int = 0
    deleted: FileRecord | None = None  # bitmap of dead rows; None while all live
    documents: int


class TemplateRecord(_Frozen):
    """The trained, empty index that every shard of the snapshot shares."""

    factory: str  # a FAISS factory string
    file: FileRecord
    metric: Literal["inner_product", "l2"]
    nprobe: int  # inverted lists scanned a query; 0 where the type has none
    oversampling: int = OVERSAMPLING  # candidates a hit that are rescored from the stored vectors
    trained_on: int  # vectors; 0 for a type that needs no training


class Counts(_Frozen):
    """The two sums of invariant 4; `check` says whether they add up."""

    sources: int = 0
    read: int = 0
    unchanged: int = 0
    sources_failed: int = 0
    documents: int = 0  # produced by the sources read, and kept from the snapshot before
    kept: int = 0  # of these, kept from the snapshot before
    indexed: int = 0
    filtered: dict[str, int] = Field(default_factory=dict)  # by rule
    duplicates: int = 0
    empty: int = 0
    failed: int = 0
    chunks: int = 0

    def check(self) -> list[str]:
        """The sums that do not hold, each as a sentence; empty when nothing was lost silently."""
        problems = []
        if self.sources != self.read + self.unchanged + self.sources_failed:
            problems.append(
                f"sources listed {self.sources} != read {self.read} + unchanged {self.unchanged} "
                f"+ failed {self.sources_failed}"
            )
        parts = self.indexed + sum(self.filtered.values()) + self.duplicates + self.empty + self.failed
        if self.documents != parts:
            problems.append(
                f"documents produced {self.documents} != indexed {self.indexed} + filtered "
                f"{sum(self.filtered.values())} + duplicates {self.duplicates} + empty {self.empty} "
                f"+ failed {self.failed}"
            )
        return problems


class LexicalRecord(_Frozen):
    """Statistics of the live chunks that BM25 needs everywhere."""

    language: str
    chunks: int
    total_length: int  # terms


class RecallReport(_Frozen):
    """Recall of the template against exact search, measured before the commit."""

    k: int
    queries: int
    nprobe: int
    oversampling: int = OVERSAMPLING
    recall: float
    target: float


class MadeBy(_Frozen):
    """Where a snapshot comes from."""

    job_id: str
    tandem: str  # version of the code
    created: str  # ISO 8601, UTC
    config_hash: str
    seconds: float

    @classmethod
    def now(cls, job_id: str, config_hash: str, seconds: float = 0.0) -> Self:
        """Of a snapshot that this version of the code makes now."""
        created = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(job_id=job_id, tandem=version("tandem"), created=created, config_hash=config_hash, seconds=seconds)


class Manifest(_Frozen):
    """One snapshot of one index."""

    format_version: Literal[2] = FORMAT_VERSION
    index: str
    number: int
    parent: int | None
    embedder: EmbedderIdentity
    template: TemplateRecord
    shards: tuple[ShardRecord, ...]
    metadata: dict[str, ColumnType]
    chunking: dict[str, int | None]
    cleaning: dict[str, str]
    lexical: LexicalRecord
    documents: tuple[FileRecord, ...]
    ledger: tuple[FileRecord, ...]  # by hash partition
    seen: FileRecord | None  # the files that were read
    dead_letters: tuple[FileRecord, ...]
    sketches: tuple[SketchRecord, ...] = ()
    counts: Counts
    recall: RecallReport | None
    made_by: MadeBy
    config: Mapping[str, object]

    @cached_property
    def dead_rows(self) -> int:
        """Rows of its shards that no search finds."""
        return sum(shard.dead_rows for shard in self.shards)

    @cached_property
    def live_rows(self) -> int:
        """Rows of its shards that are not dead."""
        return sum(shard.rows for shard in self.shards) - self.dead_rows

    def files(self) -> list[FileRecord]:
        """Every object of the snapshot."""
        found = [self.template.file, *self.documents, *self.ledger, *self.dead_letters]
        if self.seen is not None:
            found.append(self.seen)
        for sketch in self.sketches:
            found += [sketch.bands, sketch.sketches]
        for shard in self.shards:
            found.extend(shard.files.values())
            if shard.deleted is not None:
                found.append(shard.deleted)
        return found


def commit(storage: Storage, manifest: Manifest) -> None:
    """Publish `manifest`: after this call readers see it, before it they do not.

    Raises ConflictError when its number is taken: another run published first, and nothing of it is touched.
    """
    key = layout.manifest(manifest.index, manifest.number)
    try:
        storage.create(key, manifest.model_dump_json(indent=1).encode())
    except ConflictError:
        raise taken(manifest.index, manifest.number) from None


def taken(name: str, number: int) -> ConflictError:
    """What a run is told that was too late for the snapshot `number`."""
    return ConflictError(
        f"index={name}: snapshot {number} was published by another run meanwhile; it is live and intact, run the "
        "command again to build on it"
    )


def numbers(storage: Storage, name: str) -> list[int]:
    """The numbers of the snapshots of an index, ascending; empty for an index that does not exist."""
    folder = layout.index_folder(name)
    found = (
        layout.manifest_number(item.key)
        for item in storage.list(folder)
        if item.key.count("/") == folder.count("/") + 1
    )
    return sorted(number for number in found if number is not None)


def live_after(storage: Storage, name: str, number: int) -> int:
    """The number of the live snapshot, known to be `number` or later: asks for the next ones, lists nothing."""
    while storage.exists(layout.manifest(name, number + 1)):
        number += 1
    return number


def read_live(storage: Storage, name: str) -> Manifest:
    """The manifest of the live snapshot; raises NotFoundError naming the indices that exist."""
    return read(storage, name, _existing(storage, name)[-1])


def read(storage: Storage, name: str, number: int) -> Manifest:
    """The manifest of snapshot `number`; raises NotFoundError or CorruptError."""
    key = layout.manifest(name, number)
    try:
        data = storage.read(key)
    except NotFoundError:
        known = ", ".join(map(str, _existing(storage, name)))
        raise NotFoundError(f"snapshot={number}: index {name} has no such snapshot; expected one of {known}") from None
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] == ("format_version",) and isinstance(first["input"], int):
            raise CorruptError(
                f"{storage.uri}/{key} is of format {first['input']}, and this version of Tandem reads format "
                f"{FORMAT_VERSION}; use the version that wrote it, or ingest its sources into a new index"
            ) from None
        place = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise CorruptError(
            f"{storage.uri}/{key} is not a manifest of format {FORMAT_VERSION}: {place}: {first['msg']}; "
            f"restore it from a backup or use another snapshot"
        ) from None


def _existing(storage: Storage, name: str) -> list[int]:
    found = numbers(storage, name)
    if not found:
        known = ", ".join(names(storage)) or "none yet"
        raise NotFoundError(
            f"index={name}: no such index in store {storage.uri} (it has: {known}); create it with "
            f"'tandem ingest SOURCE --index {name}'"
        )
    return found


def names(storage: Storage) -> list[str]:
    """The indices of a store that have at least one snapshot, sorted."""
    found = {item.key.split("/")[1] for item in storage.list("indexes") if layout.manifest_number(item.key) is not None}
    return sorted(found)
