"""The coarse quantiser: the lists that a query scans, chosen once for all shards of a template.

Where it is large, shards are stored without it and share one of each process, and whoever asks several processes may
choose the lists for all of them.

Guaranteed: a shard that is lent the quantiser of its template lists what it would list with one of its own, and so do
lists that somebody else has chosen with it: it is the same graph over the same centroids. Not guaranteed: that a small
quantiser, which lies in each shard, is shared.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ray_jobs.errors import CorruptError
from ray_jobs.index.manifest import FileRecord
from ray_jobs.storage import Storage

APART_BYTES = 100_000_000  # of centroids, above which shards are stored without them

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Probes:
    """The inverted lists that each query scans: the coarse step, the same for every shard of one template."""

    queries: Floats  # (b, d), transformed as the lists want them
    lists: Rows  # (b, nprobe)
    scores: Floats  # (b, nprobe), of the centroids

    def __getitem__(self, chosen: Rows) -> Probes:
        return Probes(self.queries[chosen], self.lists[chosen], self.scores[chosen])


class Quantiser:
    """The quantiser of one template, mapped when it is first needed."""

    def __init__(self, storage: Storage, template: FileRecord) -> None:
        self._storage = storage
        self._template = template

    @cached_property
    def _index(self) -> Any:
        import faiss

        path = self._storage.local(self._template.key, self._template.sha256)
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)

    def probe(self, queries: Floats, nprobe: int) -> Probes | None:
        """The lists that queries (b, d) scan, `nprobe` each; None for a type without inverted lists."""
        return probe(self._index, queries, nprobe)

    def lend(self, index: Any) -> None:
        """Let `index`, which was stored without one, use it, as long as this object lives.

        Raises CorruptError where its lists are not of this template.
        """
        import faiss

        own, given = faiss.try_extract_index_ivf(self._index), faiss.extract_index_ivf(index)
        if own is None or (own.nlist, own.d) != (given.nlist, given.d):
            raise CorruptError(
                f"{self._template.key}: not the quantiser of {given.nlist:,} lists of {given.d} dimensions that a "
                f"shard needs; restore it from a backup"
            )
        empty = given.quantizer
        given.quantizer = own.quantizer
        given.own_fields = False
        # Not by `own`: of what it has not made itself, SWIG miscounts the owners.
        faiss.Index.__swig_destroy__(empty)


def for_several(storage: Storage, template: FileRecord) -> Quantiser | None:
    """What chooses the lists once for several partitions; None where it is small, and each of them may as well."""
    return Quantiser(storage, template) if template.size > APART_BYTES else None


def probe(index: Any, queries: Floats, nprobe: int) -> Probes | None:
    """The lists of a FAISS `index` that queries (b, d) scan; None where it has none.

    Raises CorruptError for an index that was stored without its quantiser and has been lent none.
    """
    import faiss

    lists = faiss.try_extract_index_ivf(index)
    if lists is None:
        return None
    if lacks_quantiser(index):
        raise CorruptError("a shard without its quantiser was opened without its template; open it by its manifest")
    if isinstance(index, faiss.IndexPreTransform):
        for position in range(index.chain.size()):
            queries = faiss.downcast_VectorTransform(index.chain.at(position)).apply(queries)
    scores, found = lists.quantizer.search(queries, min(max(1, nprobe), lists.nlist))
    return Probes(queries, found, scores)


def lacks_quantiser(index: Any) -> bool:
    """Whether an open `index` was stored without its quantiser, and has been lent none."""
    import faiss

    lists = faiss.try_extract_index_ivf(index)
    return lists is not None and lists.quantizer.ntotal == 0


@contextmanager
def left_out(index: Any, size: int) -> Iterator[None]:
    """While `index` is written: without its quantiser, where its centroids take more than `size` bytes."""
    import faiss

    lists = faiss.try_extract_index_ivf(index)
    if lists is None or 4 * lists.nlist * lists.d <= size:
        yield
        return
    whole, empty = lists.quantizer, faiss.IndexFlatIP(lists.d)
    lists.quantizer = empty
    try:
        yield
    finally:
        lists.quantizer = whole
        empty.this.own(True)  # the index took it over
