"""Invariant 1: sharding never changes an answer."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_index import (
    DIMENSION,
    WORDS,
    SmallDocument,
    VectorEmbedder,
    build_index,
    make_documents,
    make_queries,
)

from ray_jobs.index.hits import Hit
from ray_jobs.index.manifest import commit
from ray_jobs.index.search import SearchConfig, Weights
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.storage import LocalStorage

MODES = ("dense", "lexical", "hybrid")


def open_sharded(folder: Path, documents: list[SmallDocument], shards: int, factory: str, nprobe: int = 4) -> Snapshot:
    storage = LocalStorage(folder / f"store-{shards}")
    commit(storage, build_index(storage, folder / f"build-{shards}", documents, shards, factory, nprobe=nprobe))
    return Snapshot.open(storage, "small")


def found(snapshot: Snapshot, queries: list[str], config: SearchConfig) -> list[list[tuple[str, int, float]]]:
    def key(hit: Hit) -> tuple[str, int, float]:
        return hit.chunk_id, hit.rank, hit.score

    return [[key(hit) for hit in hits] for hits in snapshot.search(queries, config, VectorEmbedder(DIMENSION))]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 60),
    distinct=st.integers(1, 40),
    shards=st.integers(2, 16),
    k=st.integers(1, 12),
    by=st.sampled_from(["document", "chunk"]),
    mode=st.sampled_from(MODES),
    fusion=st.sampled_from(["bounded", "minmax", "rrf"]),
    where=st.sampled_from([None, "year >= 2005", "year = 2003"]),
    exact_below=st.sampled_from([0, 20_000]),
)
def test_flat_shards_answer_as_one_index_ties_included(
    seed: int,
    count: int,
    distinct: int,
    shards: int,
    k: int,
    by: str,
    mode: str,
    fusion: str,
    where: str | None,
    exact_below: int,
) -> None:
    documents = make_documents(seed, count, distinct)
    config = SearchConfig.model_validate(
        {"mode": mode, "k": k, "by": by, "fusion": fusion, "where": where, "depth": 7, "exact_below": exact_below}
    )
    queries = make_queries(seed, 3)
    with tempfile.TemporaryDirectory() as name:
        one = found(open_sharded(Path(name), documents, 1, "Flat"), queries, config)
        many = found(open_sharded(Path(name), documents, shards, "Flat"), queries, config)
    assert one == many


@pytest.mark.parametrize("factory", ["IVF8,Flat", "IVF8,SQ8", "IVF8_HNSW32,SQ8", "IVF8,PQ4x4fs"])
@pytest.mark.parametrize("shards", [2, 5, 16])
@pytest.mark.parametrize("by", ["document", "chunk"])
def test_shards_of_one_template_answer_as_one_index(tmp_path: Path, factory: str, shards: int, by: str) -> None:
    rng = np.random.default_rng(shards)
    documents = [
        SmallDocument(
            f"d{n:04d}", [(str(rng.choice(WORDS)), rng.standard_normal(DIMENSION).tolist()) for _ in range(2)]
        )
        for n in range(300)
    ]
    queries = [" ".join(map(str, rng.standard_normal(DIMENSION))) + "| apple plum" for _ in range(20)]
    one = open_sharded(tmp_path, documents, 1, factory)
    many = open_sharded(tmp_path, documents, shards, factory)
    for mode in MODES:
        config = SearchConfig.model_validate({"mode": mode, "by": by, "k": 10, "depth": 20})
        assert found(one, queries, config) == found(many, queries, config)


def test_dense_flat_ranks_as_brute_force_over_the_stored_vectors(tmp_path: Path) -> None:
    documents = make_documents(3, 50, 30)
    snapshot = open_sharded(tmp_path, documents, 4, "Flat")
    queries = make_queries(3, 5)
    vectors = VectorEmbedder(DIMENSION).encode_queries(queries)
    for query, hits in zip(
        vectors, snapshot.search(queries, SearchConfig(mode="dense", k=10), VectorEmbedder(DIMENSION)), strict=True
    ):
        best = [
            (
                -max(float(np.dot(query, np.array(vector, np.float16).astype(float))) for _, vector in document.chunks),
                document.doc_id,
            )
            for document in documents
        ]
        assert [(hit.doc_id, pytest.approx(hit.score, abs=1e-4)) for hit in hits] == [
            (doc_id, -score) for score, doc_id in sorted(best)[:10]
        ]


def test_a_document_scores_as_its_best_chunk(tmp_path: Path) -> None:
    documents = [
        SmallDocument("a", [("x", [1.0] + [0.0] * 7), ("y", [3.0] + [0.0] * 7)]),
        SmallDocument("b", [("z", [2.0] + [0.0] * 7)]),
    ]
    snapshot = open_sharded(tmp_path, documents, 1, "Flat")
    (hits,) = snapshot.search(["1 0 0 0 0 0 0 0"], SearchConfig(mode="dense", k=5), VectorEmbedder(DIMENSION))
    assert [(hit.doc_id, hit.text, hit.score) for hit in hits] == [("a", "y", 3.0), ("b", "z", 2.0)]


def test_a_filter_that_few_rows_pass_is_answered_exactly_on_an_ivf_index(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    documents = [
        SmallDocument(f"d{n:04d}", [("t", rng.standard_normal(DIMENSION).tolist())], {"rare": n % 100 == 0})
        for n in range(1000)
    ]
    snapshot = open_sharded(tmp_path, documents, 3, "IVF32,SQ8", nprobe=1)
    (hits,) = snapshot.search(
        [" ".join(map(str, rng.standard_normal(DIMENSION)))],
        SearchConfig(mode="dense", k=10, where="rare = true"),
        VectorEmbedder(DIMENSION),
    )
    assert len(hits) == 10
    assert all(hit.metadata["rare"] for hit in hits)


def test_a_weight_of_zero_leaves_the_other_ranking(tmp_path: Path) -> None:
    documents = make_documents(11, 40, 40)
    snapshot = open_sharded(tmp_path, documents, 2, "Flat")
    queries = make_queries(11, 4)
    for name, weights in (("dense", Weights(dense=1, lexical=0)), ("lexical", Weights(dense=0, lexical=1))):
        alone = snapshot.search(queries, SearchConfig.model_validate({"mode": name, "k": 3}), VectorEmbedder(DIMENSION))
        fused = snapshot.search(queries, SearchConfig(weights=weights, k=3), VectorEmbedder(DIMENSION))
        for one, other in zip(alone, fused, strict=True):
            assert [hit.doc_id for hit in one][:1] == [hit.doc_id for hit in other][:1]


@pytest.mark.parametrize("by", ["document", "chunk"])
def test_answers_do_not_depend_on_how_many_lists_are_held_at_a_time(
    tmp_path: Path, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = open_sharded(tmp_path, make_documents(7, 60, 20), 4, "Flat")
    queries = make_queries(7, 30)
    config = SearchConfig.model_validate({"mode": "dense", "by": by, "k": 5})
    at_once = found(snapshot, queries, config)
    monkeypatch.setattr("ray_jobs.index.nearest._ENTRIES", 1)
    assert found(snapshot, queries, config) == at_once


def test_filters_that_compare_equal_as_values_are_told_apart(tmp_path: Path) -> None:
    documents = [
        SmallDocument("a", [("x", [1.0] * DIMENSION)], {"flag": True, "count": 1}),
        SmallDocument("b", [("x", [1.0] * DIMENSION)], {"flag": False, "count": 0}),
    ]
    snapshot = open_sharded(tmp_path, documents, 1, "Flat")
    ids = {}
    for where in ("flag = true", "count = 1", "flag = false", "count = 0", "flag = true"):
        config = SearchConfig(mode="lexical", where=where)
        ids[where] = [hit.doc_id for hits in snapshot.search(["x"], config, None) for hit in hits]
    assert ids == {"flag = true": ["a"], "count = 1": ["a"], "flag = false": ["b"], "count = 0": ["b"]}
