"""Many inverted lists: their centroids by k-means in two levels, from a sample that stays on disk.

The sample is divided into about sqrt(n) clusters, and each of them, by itself, into its share of the n lists. A vector
is compared with about 2 sqrt(n) centroids an iteration in the place of n: for 65,536 lists 128 times fewer.

Guaranteed: exactly n centroids; the same sample gives the same ones on one machine. Memory: the centroids, and the
largest of the clusters. Not guaranteed: the centroids of plain k-means; what they lose is measured in
tests/bench/results.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Sample = npt.NDArray[np.float16] | npt.NDArray[np.float32]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_BLOCK_ROWS = 16_384  # vectors converted to float32 at a time
_FIRST_PER_CLUSTER = 256  # vectors a cluster from which the first level learns: as many as FAISS takes


def fill_quantiser(index: Any, sample: Sample, seed: int = 0) -> None:
    """Give the inverted lists of an untrained FAISS `index` their centroids, learned from `sample` (n, d).

    Transforms before the lists must be trained. What else must be trained, `index.train` trains afterwards.
    """
    import faiss

    lists = faiss.extract_index_ivf(index)
    centroids = two_level(sample, lists.nlist, lists.cp, _transform(index), seed)
    lists.quantizer.train(centroids)
    lists.quantizer.add(centroids)


def two_level(
    sample: Sample, count: int, parameters: Any, transform: Callable[[Floats], Floats] | None = None, seed: int = 0
) -> Floats:
    """`count` centroids (count, d) of `sample` (n, d), n >= count, by FAISS's clustering `parameters`."""
    transform = transform or (lambda vectors: vectors)
    rng = np.random.default_rng(seed)
    clusters = round(math.sqrt(count))
    chosen = _some(rng, len(sample), _FIRST_PER_CLUSTER * clusters)
    first = _centroids(transform(sample[chosen].astype(np.float32)), clusters, parameters)
    label = np.concatenate([_nearest(first, transform(block), parameters) for block in _blocks(sample)])
    order = np.argsort(label, kind="stable")
    bounds = np.searchsorted(label[order], np.arange(clusters + 1))
    shares = share_out(np.diff(bounds), count)
    parts = []
    for start, end, share in zip(bounds, bounds[1:], shares, strict=False):
        if share:
            members = np.sort(_some(rng, order[start:end], parameters.max_points_per_centroid * share))
            parts.append(_centroids(transform(sample[members].astype(np.float32)), int(share), parameters))
    return np.concatenate(parts)


def share_out(sizes: Ints, count: int) -> Ints:
    """How many of `count` centroids each cluster of `sizes` (c,) gets: in proportion, at most one a vector.

    The sum is `count`, which is at most the sum of the sizes; a cluster that has a vector gets one if there are enough.
    """
    shares = np.minimum(sizes, sizes * count // max(1, int(sizes.sum())))
    if np.count_nonzero(sizes) <= count:
        shares = np.maximum(shares, np.minimum(sizes, 1))
    while (missing := count - int(shares.sum())) != 0:
        # Whoever is furthest from its due is next; ties go by position.
        due = sizes * (count / max(1, int(sizes.sum()))) - shares
        able = shares < sizes if missing > 0 else shares > 1
        order = np.argsort(np.where(able, -due if missing > 0 else due, np.inf), kind="stable")
        moved = order[: min(abs(missing), int(able.sum()))]
        shares[moved] += 1 if missing > 0 else -1
    return shares


def _centroids(vectors: Floats, count: int, parameters: Any) -> Floats:
    import faiss

    kmeans = faiss.Kmeans(
        vectors.shape[1],
        count,
        niter=parameters.niter,
        spherical=parameters.spherical,
        seed=parameters.seed,
        max_points_per_centroid=parameters.max_points_per_centroid,
        min_points_per_centroid=1,  # small clusters are no reason to warn: they have few centroids
    )
    kmeans.train(vectors)
    found: Floats = kmeans.centroids
    return found


def _nearest(centroids: Floats, vectors: Floats, parameters: Any) -> Ints:
    import faiss

    metric = faiss.METRIC_INNER_PRODUCT if parameters.spherical else faiss.METRIC_L2
    found: Ints = faiss.knn(vectors, centroids, 1, metric=metric)[1][:, 0]
    return found


def _transform(index: Any) -> Callable[[Floats], Floats]:
    import faiss

    steps = range(index.chain.size()) if isinstance(index, faiss.IndexPreTransform) else ()

    def apply(vectors: Floats) -> Floats:
        for position in steps:
            vectors = faiss.downcast_VectorTransform(index.chain.at(position)).apply(vectors)
        return vectors

    return apply


def _some(rng: np.random.Generator, among: int | Ints, count: int) -> Ints:
    """`count` positions at random and in order, or all of them."""
    total = among if isinstance(among, int) else len(among)
    if total <= count:
        return np.arange(total) if isinstance(among, int) else among
    return np.sort(rng.choice(among, count, replace=False))


def _blocks(sample: Sample) -> Iterator[Floats]:
    for start in range(0, len(sample), _BLOCK_ROWS):
        yield sample[start : start + _BLOCK_ROWS].astype(np.float32)
