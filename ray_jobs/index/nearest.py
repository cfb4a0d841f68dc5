"""Dense search of several shards of one template as if they were one: candidates, then scores from stored vectors.

Guaranteed: the candidates are the shortest list by the index's score, over all the shards given, that holds the wanted
number of groups (documents, or rows), with everything that ties with its end; so merging with further shards loses
none. The score of a candidate is the inner product of its float16 vector with the query (see `inner_products`).
Not guaranteed: bounded time for one query whose neighbours are a single document of very many chunks: lists are
lengthened until enough documents are in them. Memory is bounded by `_ENTRIES` lists' entries at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ray_jobs.index.dense import DenseShard, Mask, inner_products
from ray_jobs.index.merge import Candidates, concatenate, thresholds
from ray_jobs.index.quantiser import Floats, Probes, Rows

_ENTRIES = 1 << 22  # entries of FAISS lists held at a time: 50 MB


@dataclass(frozen=True)
class DensePart:
    """One shard to search."""

    number: int  # position of the shard in the manifest
    dense: DenseShard
    documents: npt.NDArray[np.int32]  # (rows,), the number of each row's document
    allowed: Mask | None  # (rows,), the rows that may be found; None for all

    @cached_property
    def available(self) -> int:
        """How many rows may be found."""
        return len(self.dense) if self.allowed is None else int(self.allowed.sum())


def nearest(
    parts: Sequence[DensePart],
    queries: Floats,
    count: int,
    by_document: bool,
    exact: bool,
    nprobe: int,
    probes: Probes | None = None,
) -> Candidates:
    """The chunks of these shards among which the best `count` documents (or chunks) of each query (b, d) are.

    `exact` scans the stored vectors; otherwise FAISS lists the rows, from `nprobe` inverted lists where it has some, or
    from those of `probes`, where the caller has chosen them for several calls.
    """
    parts = [part for part in parts if part.available]
    if not parts or not count:
        return concatenate([])
    if exact:
        probes = None
    elif probes is None:
        probes = parts[0].dense.probe(queries, nprobe)
    done: list[Candidates] = []
    pending = np.arange(len(queries))
    fetch = 2 * count + 8 if by_document else count + 8
    while len(pending):
        later: list[Rows] = []
        step = max(1, _ENTRIES // (fetch * len(parts)))
        for start in range(0, len(pending), step):
            asked = pending[start : start + step]
            lists = _Lists.read(parts, queries[asked], fetch, exact, None if probes is None else probes[asked])
            threshold, complete = lists.cut(parts, count, by_document)
            done.append(lists.candidates(parts, queries, asked, threshold, complete))
            later.append(asked[~complete])
        pending = np.concatenate(later)
        fetch *= 2
    return concatenate(done)


@dataclass(frozen=True)
class _Lists:
    """What the shards list for some queries, side by side: (b, n)."""

    scores: Floats
    rows: Rows
    places: Rows  # (n,), the position in `parts` of each column
    deepest: Floats  # (b,), no entry that was not listed scores above this

    @classmethod
    def read(
        cls, parts: Sequence[DensePart], queries: Floats, fetch: int, exact: bool, probes: Probes | None
    ) -> _Lists:
        scores, rows = [], []
        deepest = np.full(len(queries), -np.inf, np.float32)
        for part in parts:
            width = min(fetch, part.available)
            if exact:
                found, listed = part.dense.scan(queries, width, part.allowed)
            else:
                found, listed = part.dense.search(queries, width, part.allowed, probes)
                found[listed < 0] = -np.inf  # nothing more was found: below every score
            if width < part.available:
                np.maximum(deepest, found[:, -1], out=deepest)
            scores.append(found)
            rows.append(listed)
        places = np.repeat(np.arange(len(parts)), [listed.shape[1] for listed in rows])
        return cls(np.concatenate(scores, axis=1), np.concatenate(rows, axis=1), places, deepest)

    def cut(
        self, parts: Sequence[DensePart], count: int, by_document: bool
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """The score from which on entries are candidates, (b,), and whether none of them is missing, (b,)."""
        scores, groups = self.scores, self._groups(parts) if by_document else None
        if len(parts) > 1:
            order = np.argsort(-scores, axis=1, kind="stable")
            scores = np.take_along_axis(scores, order, 1)
            groups = None if groups is None else np.take_along_axis(groups, order, 1)
        threshold = thresholds(groups, scores, count)
        return threshold, (self.deepest < threshold) | np.isneginf(self.deepest)

    def candidates(
        self,
        parts: Sequence[DensePart],
        queries: Floats,
        asked: Rows,
        threshold: npt.NDArray[np.float64],
        complete: npt.NDArray[np.bool_],
    ) -> Candidates:
        """The entries above the threshold of the queries that are complete, with scores from the stored vectors."""
        chosen = (self.scores >= threshold[:, None]) & (self.rows >= 0) & complete[:, None]
        # Transposed: entries come out shard by shard.
        column, local = np.nonzero(chosen.T)
        query, row = asked[local], self.rows[local, column]
        own = list(zip(parts, _slices(self.places[column], len(parts)), strict=True))
        vectors = np.concatenate([part.dense.vectors[row[entries]] for part, entries in own])
        documents = np.concatenate([part.documents[row[entries]] for part, entries in own])
        numbers = np.array([part.number for part in parts])
        return Candidates(
            query=query,
            shard=numbers[self.places[column]],
            row=row,
            document=documents.astype(np.int64),
            selection=self.scores[local, column].astype(np.float64),
            score=inner_products(vectors, queries, query),
        )

    def _groups(self, parts: Sequence[DensePart]) -> Rows:
        return np.concatenate(
            [
                part.documents[self.rows[:, own]].astype(np.int64) | (place << 40)
                for place, (part, own) in enumerate(zip(parts, _slices(self.places, len(parts)), strict=True))
            ],
            axis=1,
        )


def _slices(places: Rows, count: int) -> list[slice]:
    """Where the entries of each of `count` places lie in `places` (n,), which is sorted."""
    bounds = np.searchsorted(places, np.arange(count + 1)).tolist()
    return [slice(first, last) for first, last in pairwise(bounds)]
