"""Dense search of a shard for every kind of index: scores, filters, groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ray_jobs.index.dense import DenseShard
from ray_jobs.index.factory import IndexType
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


@pytest.mark.parametrize("factory", FACTORIES)
def test_every_type_finds_most_true_neighbours_and_only_allowed_rows(tmp_path: Path, factory: str) -> None:
    shard = open_shard(tmp_path, factory)
    queries = np.random.default_rng(1).standard_normal((20, DIMENSION)).astype(np.float32)
    allowed = np.arange(ROWS) % 3 == 0
    exact = queries @ shard.vectors.astype(np.float32).T
    for mask in (None, allowed):
        query, row, _ = shard.candidates(queries, 40, None, mask, exact=False, nprobe=16)
        truth = np.argsort(-np.where(mask, exact, -np.inf) if mask is not None else -exact, axis=1)[:, :10]
        found = [set(row[query == number].tolist()) for number in range(20)]
        recall = np.mean([len(found[number] & set(truth[number].tolist())) / 10 for number in range(20)])
        assert recall >= 0.8
        assert mask is None or mask[row].all()


def test_an_exact_scan_finds_the_true_neighbours_of_an_approximate_index(tmp_path: Path) -> None:
    shard = open_shard(tmp_path, "IVF16,SQ8")
    queries = np.random.default_rng(2).standard_normal((5, DIMENSION)).astype(np.float32)
    query, row, _ = shard.candidates(queries, 10, None, None, exact=True, nprobe=1)
    truth = np.argsort(-(queries @ shard.vectors.astype(np.float32).T), axis=1)[:, :10]
    assert [set(row[query == number].tolist()) for number in range(5)] == [set(found.tolist()) for found in truth]


def test_scores_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    shard = open_shard(tmp_path, "Flat")
    queries = np.random.default_rng(3).standard_normal((7, DIMENSION)).astype(np.float32)
    query, row = np.repeat(np.arange(7), 50), np.tile(np.arange(50), 7)
    together = shard.scores(queries, query, row)
    apart = np.concatenate([shard.scores(queries[n : n + 1], np.zeros(50, np.int64), np.arange(50)) for n in range(7)])
    assert together.tolist() == apart.tolist()


def test_enough_rows_are_listed_for_groups_of_many_rows(tmp_path: Path) -> None:
    shard = open_shard(tmp_path, "Flat")
    groups = (np.arange(ROWS) // 400).astype(np.int32)  # five documents of 400 chunks each
    queries = np.random.default_rng(4).standard_normal((3, DIMENSION)).astype(np.float32)
    query, row, _ = shard.candidates(queries, 5, groups, None, exact=False, nprobe=1)
    for number in range(3):
        assert set(groups[row[query == number]].tolist()) == {0, 1, 2, 3, 4}


def test_nothing_allowed_finds_nothing(tmp_path: Path) -> None:
    shard = open_shard(tmp_path, "Flat")
    query, row, score = shard.candidates(
        np.zeros((2, DIMENSION), np.float32), 5, None, np.zeros(ROWS, np.bool_), exact=False, nprobe=1
    )
    assert (len(query), len(row), len(score)) == (0, 0, 0)
