"""Recall is measured on the snapshot itself, and the smallest nprobe that reaches the target is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_index import SmallDocument, build_index

from ray_jobs.index.manifest import commit
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.index.template import nprobe_ladder, sample_rows, tune, with_recall
from ray_jobs.storage import LocalStorage

DIMENSION = 16


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    folder = tmp_path_factory.mktemp("template")
    rng = np.random.default_rng(0)
    documents = [SmallDocument(f"d{n}", [("t", rng.standard_normal(DIMENSION).tolist())]) for n in range(1500)]
    storage = LocalStorage(folder / "store")
    commit(storage, build_index(storage, folder / "build", documents, 3, "IVF32,SQ8"))
    return Snapshot.open(storage, "small")


def test_a_higher_target_needs_no_fewer_probes_and_all_lists_reach_nearly_all(snapshot: Snapshot) -> None:
    reports = [tune(snapshot, target) for target in (0.3, 0.8, 1.0)]
    probes = [report.nprobe for report in reports if report is not None]
    assert len(probes) == 3
    assert probes == sorted(probes)
    assert probes[0] < probes[-1]
    for report, target in zip(reports, (0.3, 0.8), strict=False):
        assert report is not None
        assert report.recall >= target
    last = reports[-1]
    assert last is not None
    assert last.recall >= 0.99


def test_the_measured_nprobe_goes_into_the_manifest(snapshot: Snapshot) -> None:
    report = tune(snapshot, 0.8)
    assert report is not None
    tuned = with_recall(snapshot.manifest, report)
    assert (tuned.template.nprobe, tuned.recall) == (report.nprobe, report)


def test_an_exact_index_has_no_recall_to_measure(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "store")
    commit(storage, build_index(storage, tmp_path / "b", [SmallDocument("a", [("t", [1.0, 0.0])])], 1))
    exact = Snapshot.open(storage, "small")
    assert tune(exact, 0.95) is None
    assert with_recall(exact.manifest, None) is exact.manifest


def test_sampled_rows_are_distinct_and_their_vectors_are_those_stored(snapshot: Snapshot) -> None:
    rows, vectors = sample_rows(snapshot, 100, seed=3)
    assert len(set(rows)) == 100
    for (shard, row), vector in zip(rows, vectors, strict=True):
        assert snapshot.partition.shards[shard].dense.vectors[row].tolist() == vector.astype(np.float16).tolist()


@pytest.mark.parametrize(
    ("lists", "ladder"), [(1, [1]), (2, [1, 2]), (20, [1, 2, 4, 8, 16, 20]), (32, [1, 2, 4, 8, 16, 32])]
)
def test_the_ladder_of_probes_ends_with_all_lists(lists: int, ladder: list[int]) -> None:
    assert nprobe_ladder(lists) == ladder


def test_short_codes_get_as_many_candidates_as_they_need(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    documents = [SmallDocument(f"d{n}", [("t", rng.standard_normal(DIMENSION).tolist())]) for n in range(1500)]
    storage = LocalStorage(tmp_path / "store")
    commit(storage, build_index(storage, tmp_path / "build", documents, 2, "IVF8,PQ2x8np"))
    short = Snapshot.open(storage, "small")
    reports = [tune(short, target) for target in (0.3, 0.9)]
    assert all(report is not None and report.recall >= report.target for report in reports)
    few, many = (report.oversampling for report in reports if report is not None)
    assert few < many
    tuned = with_recall(short.manifest, reports[1])
    assert tuned.template.oversampling == many
