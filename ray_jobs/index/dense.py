"""Dense search of one shard: candidates from FAISS, or an exact scan, then scores from the stored vectors.

Guaranteed: the score of a row is the inner product of its float16 vector with the query, computed in float64 and
rounded to float32, so that it does not depend on how the index is sharded, on batch size or on the index type; all
rows whose approximate score ties with the last candidate are candidates too, so that merging loses none.
Not guaranteed: that an approximate type (IVF, HNSW, PQ) lists every true neighbour among its candidates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ray_jobs.errors import CorruptError
from ray_jobs.index.merge import cut_sorted

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_SCAN_ROWS = 16_384  # rows converted to float32 at a time: 25 MB at 384 dimensions


class DenseShard:
    """The vectors of one shard, memory-mapped: the FAISS index and the float16 originals."""

    def __init__(self, index: Any, vectors: npt.NDArray[np.float16]) -> None:
        import faiss

        self.index = index
        self.vectors = vectors
        self._is_graph = isinstance(index, faiss.IndexHNSW)
        self._has_lists = faiss.try_extract_index_ivf(index) is not None
        self._transformed = isinstance(index, faiss.IndexPreTransform)

    @classmethod
    def open(cls, faiss_path: Path, vectors_path: Path, dimension: int) -> DenseShard:
        """Map both files; raises CorruptError when they do not fit each other."""
        import faiss

        try:
            index = faiss.read_index(str(faiss_path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            reason = str(error).rsplit("Error: ", 1)[-1].strip()
            raise CorruptError(f"{faiss_path}: not a FAISS index ({reason}); restore it from a backup") from None
        size = vectors_path.stat().st_size
        if size != index.ntotal * dimension * 2 or index.d != dimension:
            raise CorruptError(
                f"{vectors_path}: {size} bytes; expected {index.ntotal} rows of {dimension} float16 as in "
                f"{faiss_path.name}; restore it from a backup"
            )
        shape = (index.ntotal, dimension)
        if size == 0:
            return cls(index, np.empty(shape, np.float16))
        # A plain view: indexing a memmap object costs more than reading the rows.
        return cls(index, np.memmap(vectors_path, np.float16, "r", shape=shape).view(np.ndarray))

    def __len__(self) -> int:
        return int(self.index.ntotal)

    def candidates(
        self,
        queries: Floats,
        count: int,
        groups: npt.NDArray[np.int32] | None,
        allowed: Mask | None,
        exact: bool,
        nprobe: int,
    ) -> tuple[Rows, Rows, Floats]:
        """The rows of this shard among which the best `count` groups of each query are.

        `queries` is (b, d) float32; `groups` (rows,) numbers the group (the document) of each row, None when every row
        is its own; `allowed` (rows,) marks the rows that may be found, None for all; `exact` scans the stored vectors.
        Returns (query position, row, approximate score), each (n,): for every query the shortest list by approximate
        score that holds `count` distinct groups, ties at its end included.
        """
        available = len(self) if allowed is None else int(allowed.sum())
        done: list[tuple[Rows, Rows, Floats]] = [
            (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
        ]
        pending = np.arange(len(queries)) if available and count else np.empty(0, np.int64)
        fetch = min(available, count + 8 if groups is None else 2 * count + 8)
        while len(pending):
            scores, rows = self._search(queries[pending], fetch, allowed, exact, nprobe)
            found = rows >= 0
            scores[~found] = -np.inf  # nothing more was found: below every score
            kept, complete = cut_sorted(None if groups is None else groups[rows], scores, count)
            finished = complete | ~found[:, -1] | (fetch >= available)
            kept &= found & finished[:, None]
            local, _ = np.nonzero(kept)
            done.append((pending[local], rows[kept], scores[kept]))
            pending = pending[~finished]
            fetch = min(available, fetch * 2)
        query, row, score = (np.concatenate(column) for column in zip(*done, strict=True))
        return query, row, score

    def scores(self, queries: Floats, query: Rows, rows: Rows) -> npt.NDArray[np.float64]:
        """The score of each (query position, row), both (n,): float64 holding float32 values."""
        products = np.empty(len(rows), np.float64)
        wide = queries.astype(np.float64)
        for start in range(0, len(rows), _SCAN_ROWS):
            part = slice(start, start + _SCAN_ROWS)
            stored = self.vectors[rows[part]].astype(np.float64)
            products[part] = np.einsum("nd,nd->n", stored, wide[query[part]])
        return products.astype(np.float32).astype(np.float64)

    def _search(
        self, queries: Floats, fetch: int, allowed: Mask | None, exact: bool, nprobe: int
    ) -> tuple[Floats, Rows]:
        """Approximate scores and rows, (b, fetch), in descending order, rows -1 where nothing more was found."""
        if exact:
            return self._scan(queries, fetch, allowed)
        parameters = self._parameters(fetch, allowed, nprobe)
        try:
            scores, rows = self.index.search(queries, fetch, params=parameters)
        except RuntimeError:
            # Fast-scan types take no selector; the exact scan gives a better answer, more slowly.
            if allowed is None:
                raise
            return self._scan(queries, fetch, allowed)
        return scores, rows

    def _parameters(self, fetch: int, allowed: Mask | None, nprobe: int) -> Any:
        import faiss

        selector = None
        if allowed is not None:
            bitmap = np.packbits(allowed, bitorder="little")
            selector = faiss.IDSelectorBitmap(bitmap)
        if self._has_lists:
            parameters = faiss.SearchParametersIVF(nprobe=max(1, nprobe), sel=selector)
        elif self._is_graph:
            return faiss.SearchParametersHNSW(efSearch=max(64, 2 * fetch), sel=selector)
        else:
            parameters = None if selector is None else faiss.SearchParameters(sel=selector)
        if self._transformed and parameters is not None:
            return faiss.SearchParametersPreTransform(index_params=parameters)
        return parameters

    def _scan(self, queries: Floats, fetch: int, allowed: Mask | None) -> tuple[Floats, Rows]:
        """Exact inner products over the stored vectors, a block of rows at a time."""
        eligible = np.arange(len(self)) if allowed is None else np.flatnonzero(allowed)
        best_scores = np.full((len(queries), 0), 0, np.float32)
        best_rows = np.full((len(queries), 0), 0, np.int64)
        for start in range(0, len(eligible), _SCAN_ROWS):
            block = eligible[start : start + _SCAN_ROWS]
            products = queries @ self.vectors[block].astype(np.float32).T
            scores = np.concatenate([best_scores, products], axis=1)
            rows = np.concatenate([best_rows, np.broadcast_to(block, products.shape)], axis=1)
            if scores.shape[1] > fetch:
                chosen = np.argpartition(-scores, fetch - 1, axis=1)[:, :fetch]
                scores, rows = np.take_along_axis(scores, chosen, 1), np.take_along_axis(rows, chosen, 1)
            best_scores, best_rows = scores, rows
        order = np.argsort(-best_scores, axis=1, kind="stable")
        return np.take_along_axis(best_scores, order, 1), np.take_along_axis(best_rows, order, 1)
