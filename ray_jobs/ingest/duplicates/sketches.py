"""Sketch: what finds the documents of one group that are like others, stored beside their text.

Guaranteed: a document's sketch depends on its title, its text and the columns of `within` alone, on every machine.
Memory: the documents of one group. A sketch is a hash of the normalised content; for near duplicates also SIGNATURE
values of MinHash, a byte each (b-bit minwise hashing, Li and König 2010), and one key for each of its bands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.corpus.document import Document
from ray_jobs.corpus.metadata import Schema
from ray_jobs.corpus.sketch import PERMUTATIONS, Banding, normalised, signatures
from ray_jobs.index import layout
from ray_jobs.index.manifest import FileRecord, SketchRecord
from ray_jobs.ingest.config import Deduplicate
from ray_jobs.ingest.dead_letters import publish_file
from ray_jobs.ingest.ledger import write_row_groups
from ray_jobs.ingest.receipts import SketchedGroup, StagedGroup
from ray_jobs.ingest.sort import sorted_group
from ray_jobs.storage import Storage, new_id

_CONTENT = 16  # bytes
_SALT = np.uint64(0x9E3779B97F4A7C15)
SKETCH_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),  # in the documents object
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("content", pa.binary(_CONTENT), nullable=False),
        pa.field("signature", pa.binary(PERMUTATIONS)),  # null where only equal content counts
    ]
)
BANDS_SCHEMA = pa.schema([pa.field("key", pa.uint64(), nullable=False), pa.field("row", pa.int32(), nullable=False)])

Bytes = npt.NDArray[np.uint8]


class Sketcher:
    """Sketches one group after another."""

    def __init__(self, storage: Storage, index: str, partitions: int, schema: Schema, how: Deduplicate) -> None:
        self._storage = storage
        self._index = index
        self._partitions = partitions
        self._schema = schema
        self._how = how

    def sketch(self, staged: StagedGroup, dropped: pa.Table) -> SketchedGroup:
        """Sketch the documents of a group that would be embedded; `dropped` (DROPPED_SCHEMA) are not."""
        _, found = sorted_group(self._storage, staged, dropped, self._schema)
        candidates = {row: document for row, document, _ in found.kept if document.text.strip()}
        rows = np.array(list(candidates), np.int32)
        contents, keys, signed = _sketched(list(candidates.values()), self._how)
        names = pa.array([document.doc_id for document in candidates.values()], pa.string())
        table = pa.table([rows, names, contents, signed], schema=SKETCH_SCHEMA)
        bands = pa.table([keys.reshape(-1), np.repeat(rows, keys.shape[1])], schema=BANDS_SCHEMA)
        with self._storage.scratch() as folder:
            record = SketchRecord(
                documents=staged.documents.key,
                bands=self._publish_bands(folder / "bands.parquet", bands),
                sketches=self._publish_sketches(folder / "sketches.parquet", table),
            )
        return SketchedGroup(group=staged.group, record=record, documents=len(candidates))

    def _publish_bands(self, path: Path, bands: pa.Table) -> FileRecord:
        numbers = bands.column("key").to_numpy() % np.uint64(self._partitions)
        write_row_groups(path, bands, numbers.astype(np.int64), self._partitions)
        return publish_file(self._storage, layout.bands(self._index, new_id()), path)

    def _publish_sketches(self, path: Path, table: pa.Table) -> FileRecord:
        pq.write_table(table, path, compression="zstd")
        return publish_file(self._storage, layout.sketches(self._index, new_id()), path)


def read_sketches(storage: Storage, record: FileRecord, rows: npt.NDArray[np.int32]) -> tuple[list[str], Bytes, Bytes]:
    """Ids, contents (n, 16) and signatures (n, PERMUTATIONS) of the documents at some rows; no signature is 0 wide."""
    table = pq.read_table(storage.local(record.key, record.sha256))
    places = np.searchsorted(table.column("row").to_numpy(), rows)
    taken = table.take(pa.array(places))
    signed = taken.column("signature").null_count == 0
    none = np.empty((len(rows), 0), np.uint8)
    return (
        taken.column("doc_id").to_pylist(),
        _bytes(taken.column("content"), _CONTENT),
        _bytes(taken.column("signature"), PERMUTATIONS) if signed else none,
    )


def _sketched(documents: Sequence[Document], how: Deduplicate) -> tuple[pa.Array, npt.NDArray[np.uint64], pa.Array]:
    """Contents, keys (n, keys a document) and signatures of documents."""
    texts = [f"{document.title}\n{document.text}" for document in documents]
    shared = [_hash(repr([document.metadata.get(name) for name in how.within])) for document in documents]
    hashes = [_hash(normalised(text), own) for text, own in zip(texts, shared, strict=True)]
    contents = pa.array(hashes, pa.binary(_CONTENT))
    exact = _numbers(hashes)
    if how.mode == "exact":
        return contents, exact, pa.nulls(len(texts), pa.binary(PERMUTATIONS))
    banding = Banding.of(how.threshold)
    found = signatures(texts)
    # A key is that of a band and of the columns that must be shared: nothing else falls into its bucket.
    salts = np.arange(banding.bands, dtype=np.uint64) * _SALT
    keys = np.concatenate([exact, banding.keys(found) ^ _numbers(shared) ^ salts], axis=1)
    return contents, keys, pa.array([row.tobytes() for row in found.astype(np.uint8)], pa.binary(PERMUTATIONS))


def _hash(text: str, key: bytes = b"") -> bytes:
    return hashlib.blake2b(text.encode(), key=key, digest_size=_CONTENT).digest()


def _numbers(hashes: Sequence[bytes]) -> npt.NDArray[np.uint64]:
    """The first 64 bits of each, (n, 1)."""
    return np.array([int.from_bytes(own[:8], "little") for own in hashes], np.uint64).reshape(-1, 1)


def _bytes(column: pa.ChunkedArray, width: int) -> Bytes:
    return np.frombuffer(b"".join(column.to_pylist()), np.uint8).reshape(-1, width)
