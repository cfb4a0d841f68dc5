"""The vectors of one shard: the rows that FAISS or an exact scan lists for a query.

Guaranteed: with the same template a row has the same score in whichever shard it lies, but for rounding where a library
adds in blocks; the lists are sorted by that score. `inner_products` rounds alike always.
Not guaranteed: that an approximate type (IVF, HNSW, PQ) lists every true neighbour.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ray_jobs.errors import CorruptError
from ray_jobs.index.quantiser import Floats, Probes, Quantiser, Rows, lacks_quantiser, probe

Mask = npt.NDArray[np.bool_]

_BLOCK_ROWS = 16_384  # rows converted from float16 at a time: 25 MB at 384 dimensions
_SORTED_QUERIES = 32  # whose scores of a block are sorted at a time: 4 MB of positions
_CACHED_ROWS = 128  # rows converted to float64 at a time: they stay in the processor's cache


class DenseShard:
    """The vectors of one shard, memory-mapped: the FAISS index and the float16 originals."""

    def __init__(self, index: Any, vectors: npt.NDArray[np.float16], quantiser: Quantiser | None = None) -> None:
        import faiss

        if quantiser is not None and lacks_quantiser(index):
            quantiser.lend(index)
            self._lender = quantiser  # which must outlive the index
        self.index = index
        self.vectors = vectors
        self._is_graph = isinstance(index, faiss.IndexHNSW)
        lists = faiss.try_extract_index_ivf(index)
        self._lists = None if lists is None else faiss.downcast_index(lists)
        self._transformed = isinstance(index, faiss.IndexPreTransform)

    @classmethod
    def open(
        cls, faiss_path: Path, vectors_path: Path, dimension: int, quantiser: Quantiser | None = None
    ) -> DenseShard:
        """Map both files; raises CorruptError when they do not fit each other.

        `quantiser` is that of the template: without it, an index that was stored without one cannot be searched.
        """
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
            return cls(index, np.empty(shape, np.float16), quantiser)
        # A plain view: indexing a memmap object costs more than reading the rows.
        return cls(index, np.memmap(vectors_path, np.float16, "r", shape=shape).view(np.ndarray), quantiser)

    def __len__(self) -> int:
        return int(self.index.ntotal)

    def probe(self, queries: Floats, nprobe: int) -> Probes | None:
        """The lists that queries (b, d) scan, `nprobe` each; None for a type without inverted lists."""
        return probe(self.index, queries, nprobe)

    def search(self, queries: Floats, count: int, allowed: Mask | None, probes: Probes | None) -> tuple[Floats, Rows]:
        """The `count` best rows of each query by the score of the index, (b, count), descending; row -1: no more.

        `queries` is (b, d) float32; `allowed` (rows,) marks the rows that may be found, None for all; `probes` are
        those of `probe`.
        """
        import faiss

        selector = None if allowed is None else faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        try:
            if probes is not None:
                return self._search_lists(count, probes, selector)
            parameters = self._parameters(count, selector)
            scores, rows = self.index.search(queries, count, params=parameters)
        except RuntimeError:
            # Fast-scan types take no selector; the exact scan gives a better answer, more slowly.
            if allowed is None:
                raise
            return self.scan(queries, count, allowed)
        return scores, rows

    def _search_lists(self, count: int, probes: Probes, selector: Any) -> tuple[Floats, Rows]:
        import faiss

        size, nprobe = probes.lists.shape
        scores, rows = np.empty((size, count), np.float32), np.empty((size, count), np.int64)
        # The Python method takes no parameters, so the one beneath it is called.
        self._lists.search_preassigned_c(  # type: ignore[union-attr]
            size,
            faiss.swig_ptr(probes.queries),
            count,
            faiss.swig_ptr(probes.lists),
            faiss.swig_ptr(probes.scores),
            faiss.swig_ptr(scores),
            faiss.swig_ptr(rows),
            False,
            faiss.SearchParametersIVF(nprobe=nprobe, sel=selector),
        )
        return scores, rows

    def _parameters(self, count: int, selector: Any) -> Any:
        import faiss

        if self._is_graph:
            return faiss.SearchParametersHNSW(efSearch=max(64, 2 * count), sel=selector)
        parameters = None if selector is None else faiss.SearchParameters(sel=selector)
        if self._transformed and parameters is not None:
            return faiss.SearchParametersPreTransform(index_params=parameters)
        return parameters

    def scan(self, queries: Floats, count: int, allowed: Mask | None) -> tuple[Floats, Rows]:
        """As `search`, by exact inner products over the stored vectors; no more columns than rows may be found."""
        eligible = np.arange(len(self)) if allowed is None else np.flatnonzero(allowed)
        best_scores = np.full((len(queries), 0), 0, np.float32)
        best_rows = np.full((len(queries), 0), 0, np.int64)
        for start in range(0, len(eligible), _BLOCK_ROWS):
            block = eligible[start : start + _BLOCK_ROWS]
            products = queries @ self.vectors[block].astype(np.float32).T
            chosen = _largest(products, count)
            scores = np.concatenate([best_scores, np.take_along_axis(products, chosen, 1)], axis=1)
            rows = np.concatenate([best_rows, block[chosen]], axis=1)
            kept = _largest(scores, count)
            best_scores, best_rows = np.take_along_axis(scores, kept, 1), np.take_along_axis(rows, kept, 1)
        order = np.argsort(-best_scores, axis=1, kind="stable")
        return np.take_along_axis(best_scores, order, 1), np.take_along_axis(best_rows, order, 1)


def _largest(scores: Floats, count: int) -> Rows:
    """Positions of the `count` largest of each row of (b, n), in any order; all of them where there are fewer."""
    left_out = max(0, scores.shape[1] - count)
    some = [
        np.argpartition(scores[start : start + _SORTED_QUERIES], left_out, axis=1)[:, left_out:].copy()
        for start in range(0, len(scores), _SORTED_QUERIES)
    ]
    return np.concatenate([np.empty((0, scores.shape[1] - left_out), np.int64), *some])


def inner_products(vectors: npt.NDArray[np.float16], queries: Floats, query: Rows) -> npt.NDArray[np.float64]:
    """The inner product of each stored vector (n, d) with the query of queries (b, d) that `query` (n,) names.

    Computed in float64 and rounded to float32, so that it is the same number whatever else is computed with it.
    """
    products = np.empty(len(query), np.float64)
    wide = queries.astype(np.float64)
    for start in range(0, len(query), _CACHED_ROWS):
        part = slice(start, start + _CACHED_ROWS)
        products[part] = np.einsum("nd,nd->n", vectors[part].astype(np.float64), wide[query[part]])
    return products.astype(np.float32).astype(np.float64)
