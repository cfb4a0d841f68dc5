"""Match: among the documents whose keys fall into one partition, the pairs that are equal or nearly equal.

Guaranteed: a pair is an edge only where the contents are equal or the estimated Jaccard similarity reaches the
threshold; its first document precedes its second: documents of the snapshot before precede those of this run, whose
order is that of groups and rows. Not guaranteed: that every near pair is found: those of similarity `threshold` with
the chance that `Banding.chance` says, and a document is compared with the first COMPARED of those that share a key.
Memory: the keys of one partition, and one sketch for each document that shares a key with another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ray_jobs.index.manifest import SketchRecord
from ray_jobs.ingest.duplicates.sketches import BANDS_SCHEMA, Bytes, read_sketches
from ray_jobs.ingest.ledger import read_row_groups, write_row_groups
from ray_jobs.ingest.receipts import MatchedPartition
from ray_jobs.storage import Storage, new_id

COMPARED = 16
BITS = 8  # of each value of a signature that are kept
EDGE_SCHEMA = pa.schema(
    [
        pa.field("group", pa.int32(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("other_group", pa.int32(), nullable=False),  # below 0: of the snapshot before
        pa.field("other_row", pa.int32(), nullable=False),
        pa.field("other_id", pa.string(), nullable=False),
        pa.field("similarity", pa.float32(), nullable=False),
        pa.field("same", pa.bool_(), nullable=False),  # contents are equal
    ]
)

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Sketched:
    """The documents that share a key with another one, by ascending number."""

    numbers: Numbers
    ids: list[str]
    contents: Bytes
    signatures: Bytes

    def edges(self, later: Numbers, earlier: Numbers, threshold: float) -> pa.Table:
        """The pairs of documents, by number, that are near; EDGE_SCHEMA."""
        one, other = np.searchsorted(self.numbers, later), np.searchsorted(self.numbers, earlier)
        same = (self.contents[one] == self.contents[other]).all(axis=1)
        near = np.where(same, 1.0, _similarity(self.signatures[one], self.signatures[other]))
        chosen = same | (near >= threshold)
        groups, rows = split(later[chosen])
        other_groups, other_rows = split(earlier[chosen])
        ids = pa.array(self.ids, pa.string()).take(pa.array(other[chosen]))
        columns = [groups, rows, other_groups, other_rows, ids, near[chosen].astype(np.float32), same[chosen]]
        return pa.table(columns, schema=EDGE_SCHEMA)


def match_partition(
    storage: Storage,
    folder: str,
    partition: int,
    groups: Sequence[tuple[int, SketchRecord]],
    ranges: Sequence[int],
    threshold: float,
) -> MatchedPartition:
    """Find the edges of one partition and store them, a row group for each range of the later one's group.

    `groups` are (number, sketches), ascending; a range ends before its number in `ranges`.
    """
    numbers = _sharing(storage, partition, groups)
    sketched = _read(storage, groups, np.unique(np.concatenate([numbers.later, numbers.earlier])))
    pairs = np.unique(np.stack([numbers.later, numbers.earlier], axis=1), axis=0)
    edges = sketched.edges(pairs[:, 0], pairs[:, 1], threshold)
    key = f"{folder}/edges/{new_id()}.parquet"
    with storage.scratch() as scratch:
        path = scratch / "edges.parquet"
        write_row_groups(path, edges, np.searchsorted(ranges, edges.column("group").to_numpy(), "right"), len(ranges))
        storage.upload(key, path)
    old = int((edges.column("other_group").to_numpy() < 0).sum())
    return MatchedPartition(partition=partition, key=key, edges=edges.num_rows, old=old)


def number(groups: npt.NDArray[np.integer], rows: npt.NDArray[np.integer]) -> Numbers:
    """One number for a document: ascending in the order of groups and rows."""
    return (groups.astype(np.int64) << 32) + rows.astype(np.int64)


def split(numbers: Numbers) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Group and row of documents."""
    return (numbers >> 32).astype(np.int32), (numbers & 0xFFFFFFFF).astype(np.int32)


@dataclass(frozen=True)
class _Pairs:
    later: Numbers
    earlier: Numbers


def _sharing(storage: Storage, partition: int, groups: Sequence[tuple[int, SketchRecord]]) -> _Pairs:
    """The pairs that share a key, of which the later document is of this run."""
    paths = [storage.local(record.bands.key, record.bands.sha256) for _, record in groups]
    tables = read_row_groups(paths, partition, BANDS_SCHEMA.names)
    keys = np.concatenate([np.empty(0, np.uint64), *(table.column("key").to_numpy() for table in tables)])
    documents = np.concatenate(
        [
            np.empty(0, np.int64),
            *(
                number(np.full(table.num_rows, group), table.column("row").to_numpy())
                for (group, _), table in zip(groups, tables, strict=True)
            ),
        ]
    )
    order = np.lexsort((documents, keys))
    keys, documents = keys[order], documents[order]
    begins = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(keys) else np.empty(0, np.int64)
    first = np.repeat(begins, np.diff(np.r_[begins, len(keys)]))
    pairs = list(_by_place(documents, np.arange(len(keys)) - first, first))
    later, earlier = (np.concatenate([np.empty(0, np.int64), *side]) for side in zip(*pairs, strict=True))
    return _Pairs(later, earlier)


def _by_place(documents: Numbers, places: Numbers, first: Numbers) -> Iterator[tuple[Numbers, Numbers]]:
    """Each document of this run with the one that is the n-th of those that share its key, for each n."""
    for nth in range(COMPARED):
        behind = np.flatnonzero((places > nth) & (documents >= 0))
        yield documents[behind], documents[first[behind] + nth]


def _read(storage: Storage, groups: Sequence[tuple[int, SketchRecord]], numbers: Numbers) -> _Sketched:
    """The sketches of documents by ascending number."""
    owners, rows = split(numbers)
    found: list[tuple[list[str], Bytes, Bytes]] = []
    for group, record in groups:
        first, last = np.searchsorted(owners, [group, group + 1])
        if first < last:
            found.append(read_sketches(storage, record.sketches, rows[first:last]))
    ids = [doc_id for own, _, _ in found for doc_id in own]
    if not found:
        return _Sketched(numbers, ids, np.empty((0, 16), np.uint8), np.empty((0, 0), np.uint8))
    contents, signatures = (np.concatenate(side) for side in list(zip(*found, strict=True))[1:])
    return _Sketched(numbers, ids, contents, signatures)


def _similarity(some: Bytes, others: Bytes) -> npt.NDArray[np.float64]:
    """Estimated Jaccard similarity of pairs, from signatures of BITS bits a value; 0 where there are none."""
    if not some.shape[1]:
        return np.zeros(len(some))
    # Values that differ have the same low bits by chance (Li and König 2010, equation 4, for large sets).
    chance = 1 / (1 << BITS)
    return np.asarray(((some == others).mean(axis=1) - chance) / (1 - chance))
