"""A bound on the memory of the index: it decides the type, and an index that would outgrow it is not published."""

from __future__ import annotations

from pathlib import Path

import pytest
from ingest_runs import doc_ids, ingest, live, write_jsonl

from ray_jobs.errors import UsageError
from ray_jobs.index.factory import IndexType
from ray_jobs.index.ladder import Wanted, size
from ray_jobs.index.search import SearchConfig
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.models.for_queries import load_for_queries
from ray_jobs.storage import LocalStorage

pytest_plugins = ["in_process"]
pytestmark = pytest.mark.usefixtures("in_process")
BUDGET = 1 << 20
DIMENSION = 64  # of the fake embedder: 4,096 vectors fill the budget


def write(path: Path, first: int, count: int) -> Path:
    return write_jsonl(
        path, [{"id": f"d{n}", "text": f"word{n} and word{n % 97}"} for n in range(first, first + count)]
    )


def test_an_index_does_not_outgrow_its_budget(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.jsonl", 0, 3_000), write(tmp_path / "b.jsonl", 3_000, 2_000)
    ingest(tmp_path, first, memory_budget=BUDGET)
    with pytest.raises(UsageError, match=r"memory_budget=1048576: 5,000 vectors in Flat need 1,280,000 bytes"):
        ingest(tmp_path, first, second, memory_budget=BUDGET)
    assert live(tmp_path).number == 1
    assert len(doc_ids(tmp_path)) == 3_000
    assert ingest(tmp_path, first, second, memory_budget=2 * BUDGET).snapshot == 2
    assert len(doc_ids(tmp_path)) == 5_000


def test_what_goes_needs_no_budget(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", 0, 5_000)
    ingest(tmp_path, source)
    write(source, 0, 4_990)
    summary = ingest(tmp_path, source, prune=True, memory_budget=BUDGET)
    assert (summary.outcome, summary.gone) == ("published", 10)


@pytest.mark.parametrize("code", ["SQ8", "PQ8x8np"])
def test_shorter_codes_are_chosen_where_memory_is_short_and_reach_the_recall(tmp_path: Path, code: str) -> None:
    source = write(tmp_path / "a.jsonl", 0, 11_000)
    rungs = {
        "SQ8": "IVF282,SQ8",
        "PQ8x8np": "OPQ8_64,IVF282,PQ8x8np",
    }
    budget = size(IndexType(rungs[code], ""), Wanted(11_000, DIMENSION))
    summary = ingest(tmp_path, source, memory_budget=budget, recall_target=0.995 if code == "SQ8" else 0.9)
    assert summary.index_type == rungs[code]
    assert summary.recall is not None
    assert summary.recall.recall >= summary.recall.target
    opened = Snapshot.open(LocalStorage(tmp_path / "store"), "test")
    embedder = load_for_queries(None, opened.manifest.embedder)
    (hits,) = opened.search(["word7 and word7"], SearchConfig(mode="dense", k=3), embedder)
    assert hits[0].doc_id == "d7"
