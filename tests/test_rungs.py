"""Every rung of the ladder: what it takes, what it answers, and that rescoring makes up for its codes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rungs import COUNT, DIMENSION, FACTORIES, LISTS, found, queries, snapshot, vectors

from ray_jobs.index import layout
from ray_jobs.index.factory import IndexType, index_bytes
from ray_jobs.index.merge import Candidates
from ray_jobs.index.search import Queries, SearchConfig, Statistics, make_plan
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.index.template import OVERSAMPLINGS, tune


@pytest.fixture(scope="module", params=FACTORIES)
def factory(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def whole(factory: str, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return snapshot(tmp_path_factory.mktemp("whole"), factory, 1)


@pytest.fixture(scope="module")
def sharded(factory: str, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return snapshot(tmp_path_factory.mktemp("sharded"), factory, 5)


def test_its_files_are_as_large_as_was_predicted(whole: Snapshot, sharded: Snapshot) -> None:
    for opened in (whole, sharded):
        records = opened.manifest.shards
        real = sum(record.files[layout.VECTORS_FAISS].size for record in records)
        index_type = IndexType(opened.manifest.template.factory, "")
        codes = index_bytes(index_type, COUNT, DIMENSION, len(records))
        quantiser = opened.manifest.template.file.size
        # Beside codes and numbers, each shard has a copy of what was trained.
        assert codes == pytest.approx(real - (len(records) - 1) * quantiser, rel=0.1, abs=quantiser)


@pytest.mark.parametrize("by", ["document", "chunk"])
def test_shards_answer_as_one_index(whole: Snapshot, sharded: Snapshot, by: str) -> None:
    for mode in ("dense", "hybrid"):
        config = SearchConfig.model_validate({"mode": mode, "by": by, "k": 10, "depth": 20})
        one, many = found(whole, queries(20), config), found(sharded, queries(20), config)
        if "RaBitQ" not in whole.manifest.template.factory:
            assert one == many
            continue
        # Its scores are estimates with an error that is computed in another order: a candidate may fall out.
        shared = [len({hit[0] for hit in a} & {hit[0] for hit in b}) / len(a) for a, b in zip(one, many, strict=True)]
        assert np.mean(shared) >= 0.99


def test_rescoring_never_lowers_recall(whole: Snapshot) -> None:
    asked = vectors(30, seed=6)
    truth = _best(whole.partition.shards[0].dense.vectors.astype(np.float32) @ asked.T)
    listed = _listed(whole, asked, OVERSAMPLINGS[0])
    by_code = [_top(listed, query, listed.selection) for query in range(30)]
    rescored = [_top(listed, query, listed.score) for query in range(30)]
    for true, coded, exact in zip(truth, by_code, rescored, strict=True):
        assert len(true & exact) >= len(true & coded)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999))
def test_more_candidates_never_lower_recall(whole: Snapshot, seed: int) -> None:
    asked = vectors(5, seed=seed)
    truth = _best(whole.partition.shards[0].dense.vectors.astype(np.float32) @ asked.T)
    hits = []
    for oversampling in OVERSAMPLINGS:
        listed = _listed(whole, asked, oversampling)
        hits.append([len(true & _top(listed, query, listed.score)) for query, true in enumerate(truth)])
    assert (np.diff(hits, axis=0) >= 0).all()


def test_a_hit_scores_what_its_stored_vector_says(whole: Snapshot) -> None:
    asked = vectors(5, seed=8)
    listed = _listed(whole, asked, 2)
    stored = whole.partition.shards[0].dense.vectors[listed.row].astype(np.float64)
    assert np.allclose(listed.score, np.einsum("nd,nd->n", stored, asked[listed.query]), atol=1e-6)


def test_the_gate_finds_what_reaches_the_target(whole: Snapshot) -> None:
    report = tune(whole, 0.9)
    assert report is not None
    assert report.recall >= 0.9
    assert report.nprobe <= LISTS


def _listed(opened: Snapshot, asked: np.ndarray, oversampling: int) -> Candidates:
    """The candidates of dense search in all lists."""
    template = opened.manifest.template.model_copy(update={"oversampling": oversampling})
    manifest = opened.manifest.model_copy(update={"template": template})
    plan = replace(make_plan(manifest, SearchConfig(mode="dense", by="chunk", k=10), None, 0), nprobe=LISTS)
    return opened.partition.candidates(Queries(asked, [[] for _ in asked]), plan, Statistics())["dense"]


def _best(products: np.ndarray) -> list[set[int]]:
    return [set(rows.tolist()) for rows in np.argsort(-products, axis=0)[:10].T]


def _top(listed: Candidates, query: int, score: np.ndarray) -> set[int]:
    own = np.flatnonzero(listed.query == query)
    return set(listed.row[own[np.argsort(-score[own], kind="stable")[:10]]].tolist())
