"""Centroids in two levels: as many as asked for, from a sample that may lie on disk, nearly as good as in one."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.index import template
from ray_jobs.index.clustering import share_out, two_level
from ray_jobs.index.factory import IndexType

DIMENSION = 16


def clustered(count: int, seed: int = 0) -> np.ndarray:
    """Vectors of length 1 around some hundred centres of very different weight."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((200, DIMENSION))
    weight = 1 / np.arange(1, 201)
    chosen = rng.choice(200, count, p=weight / weight.sum())
    vectors = centres[chosen] + 0.5 * rng.standard_normal((count, DIMENSION))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def _cp() -> object:
    """The clustering parameters of an IVF index of inner products."""
    import faiss

    found = faiss.ClusteringParameters()
    found.niter, found.spherical = 10, True
    return found


@given(sizes=st.lists(st.integers(0, 10_000), min_size=1, max_size=40), part=st.floats(0, 1))
def test_centroids_are_shared_out_in_proportion(sizes: list[int], part: float) -> None:
    total = sum(sizes)
    count = round(part * total)
    shares = share_out(np.array(sizes, np.int64), count)
    assert shares.sum() == count
    assert (shares <= sizes).all()
    assert (shares >= 0).all()
    filled = [size for size in sizes if size]
    if count >= len(filled):
        assert all(share >= 1 for share, size in zip(shares, sizes, strict=True) if size)
    if count > 2 * len(filled):
        assert np.abs(shares - np.array(sizes) * count / max(1, total)).max() <= len(filled) + 1


def test_there_are_as_many_centroids_as_lists_and_no_two_are_alike() -> None:
    centroids = two_level(clustered(20_000), 300, _cp())
    assert centroids.shape == (300, DIMENSION)
    assert len(np.unique(centroids.round(5), axis=0)) == 300
    assert np.allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-4)


def test_two_levels_are_nearly_as_good_as_one() -> None:
    import faiss

    sample, lists = clustered(40_000), 256
    vectors = clustered(10_000, seed=1).astype(np.float32)
    plain = faiss.Kmeans(DIMENSION, lists, niter=10, spherical=True, seed=1234)
    plain.train(sample.astype(np.float32))
    near = [
        float(faiss.knn(vectors, centroids, 1, metric=faiss.METRIC_INNER_PRODUCT)[0].mean())
        for centroids in (plain.centroids, two_level(sample, lists, _cp()))
    ]
    chance = float(
        faiss.knn(vectors, sample[:lists].astype(np.float32), 1, metric=faiss.METRIC_INNER_PRODUCT)[0].mean()
    )
    assert near[1] - chance > 0.8 * (near[0] - chance)


def test_the_same_sample_gives_the_same_centroids_mapped_or_not(tmp_path: Path) -> None:
    sample = clustered(5_000)
    sample.tofile(tmp_path / "sample.f16")
    mapped = np.memmap(tmp_path / "sample.f16", np.float16, "r", shape=sample.shape)
    assert np.array_equal(two_level(mapped, 60, _cp()), two_level(sample, 60, _cp()))


@pytest.mark.parametrize(
    "factory",
    [
        "IVF64_HNSW32,SQ8",
        "RR16,IVF64_HNSW32,RaBitQ4",
        pytest.param("OPQ4_16,IVF64_HNSW32,PQ4x8np", marks=pytest.mark.chaos),  # half a minute
    ],
)
def test_templates_of_many_lists_are_trained_in_two_levels(
    tmp_path: Path, factory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import faiss

    monkeypatch.setattr(template, "TWO_LEVEL_LISTS", 32)
    sample = clustered(20_000)
    assert template.train(IndexType(factory, ""), sample, DIMENSION, tmp_path / "t") == len(sample)
    index = faiss.read_index(str(tmp_path / "t"))
    lists = faiss.extract_index_ivf(index)
    assert index.is_trained
    assert (lists.quantizer.ntotal, index.ntotal) == (64, 0)
    index.add(sample.astype(np.float32))
    lists.nprobe = 16
    queries = clustered(50, seed=2).astype(np.float32)
    truth = faiss.knn(queries, sample.astype(np.float32), 10, metric=faiss.METRIC_INNER_PRODUCT)[1]
    found = index.search(queries, 100)[1]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(truth.tolist(), found.tolist(), strict=True)]) > 0.8


def test_a_sample_on_disk_is_never_in_memory_whole(tmp_path: Path) -> None:
    sample = clustered(300_000)
    sample.tofile(tmp_path / "sample.f16")
    mapped = np.memmap(tmp_path / "sample.f16", np.float16, "r", shape=sample.shape)
    del sample
    tracemalloc.start()
    two_level(mapped, 400, _cp())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    numbers = 3 * 8 * len(mapped)  # the cluster of each vector, and their order
    assert peak < numbers + 0.5 * mapped.size * 4
