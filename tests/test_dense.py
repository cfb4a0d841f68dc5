"""Dense search for every kind of index: scores, filters, documents of many chunks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ray_jobs.index.dense import DenseShard, Mask, inner_products
from ray_jobs.index.factory import IndexType
from ray_jobs.index.merge import Candidates
from ray_jobs.index.nearest import DensePart, nearest
from ray_jobs.index.template import train

DIMENSION = 16
ROWS = 2000
FACTORIES = [
    "Flat",
    "SQ8",
    "HNSW32",
    "IVF16,SQ8",
    "IVF16_HNSW32,SQ8",
    "OPQ4_16,IVF16,PQ4x8",
    "RR16,IVF16,RaBitQ4",
    "PQ16x4fs",
    "IVF16,PQ8x4fs",
    "IVF16_HNSW32,PQ8x4fs",
]


def open_shard(folder: Path, factory: str) -> DenseShard:
    import faiss

    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((ROWS, DIMENSION)).astype(np.float16)
    template = folder / "template"
    train(IndexType(factory, ""), np.repeat(vectors, 5, axis=0).astype(np.float32), DIMENSION, template)
    index = faiss.read_index(str(template))
    index.add(vectors.astype(np.float32))
    faiss.write_index(index, str(folder / "vectors.faiss"))
    vectors.tofile(folder / "vectors.f16")
    return DenseShard.open(folder / "vectors.faiss", folder / "vectors.f16", DIMENSION)


def find(
    shard: DenseShard,
    queries: np.ndarray,
    count: int,
    *,
    documents: np.ndarray | None = None,
    allowed: Mask | None = None,
    exact: bool = False,
    nprobe: int = 1,
) -> Candidates:
    by_document = documents is not None
    groups = np.arange(len(shard), dtype=np.int32) if documents is None else documents
    return nearest([DensePart(0, shard, groups, allowed)], queries, count, by_document, exact, nprobe)


@pytest.mark.parametrize("factory", FACTORIES)
def test_every_type_finds_most_true_neighbours_and_only_allowed_rows(tmp_path: Path, factory: str) -> None:
    shard = open_shard(tmp_path, factory)
    queries = np.random.default_rng(1).standard_normal((20, DIMENSION)).astype(np.float32)
    allowed = np.arange(ROWS) % 3 == 0
    exact = queries @ shard.vectors.astype(np.float32).T
    for mask in (None, allowed):
        listed = find(shard, queries, 40, allowed=mask, nprobe=16)
        truth = np.argsort(-np.where(mask, exact, -np.inf) if mask is not None else -exact, axis=1)[:, :10]
        found = [set(listed.row[listed.query == number].tolist()) for number in range(20)]
        recall = np.mean([len(found[number] & set(truth[number].tolist())) / 10 for number in range(20)])
        assert recall >= 0.8
        assert mask is None or mask[listed.row].all()


def test_an_exact_scan_finds_the_true_neighbours_of_an_approximate_index(tmp_path: Path) -> None:
    shard = open_shard(tmp_path, "IVF16,SQ8")
    queries = np.random.default_rng(2).standard_normal((5, DIMENSION)).astype(np.float32)
    listed = find(shard, queries, 10, exact=True)
    truth = np.argsort(-(queries @ shard.vectors.astype(np.float32).T), axis=1)[:, :10]
    assert [set(listed.row[listed.query == number].tolist()) for number in range(5)] == [
        set(found.tolist()) for found in truth
    ]


def test_scores_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    vectors = open_shard(tmp_path, "Flat").vectors[:50]
    queries = np.random.default_rng(3).standard_normal((7, DIMENSION)).astype(np.float32)
    together = inner_products(np.tile(vectors, (7, 1)), queries, np.repeat(np.arange(7), 50))
    apart = [
        inner_products(vectors[row][None], queries[n][None], np.zeros(1, np.int64))
        for n in range(7)
        for row in range(50)
    ]
    assert together.tolist() == np.concatenate(apart).tolist()


def test_enough_rows_are_listed_for_groups_of_many_rows(tmp_path: Path) -> None:
    shard = open_shard(tmp_path, "Flat")
    groups = (np.arange(ROWS) // 400).astype(np.int32)  # five documents of 400 chunks each
    queries = np.random.default_rng(4).standard_normal((3, DIMENSION)).astype(np.float32)
    listed = find(shard, queries, 5, documents=groups)
    for number in range(3):
        assert set(groups[listed.row[listed.query == number]].tolist()) == {0, 1, 2, 3, 4}


def test_nothing_allowed_finds_nothing(tmp_path: Path) -> None:
    shard = open_shard(tmp_path, "Flat")
    nothing = np.zeros(ROWS, np.bool_)
    assert len(find(shard, np.zeros((2, DIMENSION), np.float32), 5, allowed=nothing)) == 0
