"""What a dry run says of a run: from the stages themselves, without a trace in the store, near to what happens."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ingest_runs import article, config, ingest, write_jsonl

from ray_jobs.corpus.sources import SourceFile
from ray_jobs.errors import UsageError
from ray_jobs.index.factory import IndexType
from ray_jobs.index.ladder import RUNGS, Wanted
from ray_jobs.ingest import forecast, trial
from ray_jobs.ingest.changes import compared
from ray_jobs.ingest.dry_run import IngestPlan, dry_run
from ray_jobs.ingest.forecast import Expected, Machine
from ray_jobs.ingest.trial import Trial

pytest_plugins = ["in_process"]
pytestmark = pytest.mark.usefixtures("in_process")

TRIED = Trial(
    source_bytes=1_000,
    documents=10,
    chunks=100,
    text_bytes=200_000,
    sizes={
        "documents": 50_000,
        "ledger": 1_000,
        "rows.arrow": 120_000,
        "vectors.f16": 76_800,
        "vectors.faiss": 153_600,
        "postings/rows.u32": 9_000,
    },
    seconds={"read": 0.5, "prepare": 0.25, "build": 0.4, "hash": 0.01},
    chunks_per_second=100.0,
)
MACHINE = Machine(workers=4, embedders=1, threads=4, load_seconds=1.0, comparisons=1e10, resident=500 << 20)


def expected(rows: int, index_type: str = "Flat", shards: int = 1) -> Expected:
    share = TRIED.chunks / rows
    return Expected(share, rows, 384, 8, shards, IndexType(index_type, ""))


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [article(n) for n in range(50)])
    plan = dry_run(config(tmp_path, source))
    assert (plan.documents, plan.index_type, plan.sources) == (50, "Flat", 1)
    assert plan.chunks >= 49
    assert not (tmp_path / "store").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl"]


def test_disk_and_chunks_are_those_of_the_run_where_the_sample_is_the_corpus(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [article(n) for n in range(300)])
    plan = dry_run(config(tmp_path, source, shards=2))
    summary = ingest(tmp_path, source, shards=2)
    assert plan.chunks == summary.counts.chunks
    assert plan.documents == summary.counts.documents
    assert plan.shards == summary.shards
    assert plan.disk == pytest.approx(summary.bytes, rel=0.1)


def test_a_sample_of_a_large_corpus_is_scaled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "SOURCE_BYTES", 60_000)
    sources = [write_jsonl(tmp_path / f"{n:02d}.jsonl", [article(60 * n + i) for i in range(60)]) for n in range(12)]
    plan = dry_run(config(tmp_path, *sources))
    summary = ingest(tmp_path, *sources)
    assert plan.sampled_documents < 0.7 * plan.documents
    assert plan.chunks == pytest.approx(summary.counts.chunks, rel=0.25)
    assert plan.disk == pytest.approx(summary.bytes, rel=0.25)


def test_a_plan_names_the_stages_of_the_run(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [article(n) for n in range(50)])
    plan = dry_run(config(tmp_path, source))
    assert plan.seconds.keys() == ingest(tmp_path, source).seconds.keys()
    text = "\n".join(plan.lines())
    assert "nothing was written" in text
    assert IngestPlan.model_validate_json(plan.model_dump_json()) == plan


def test_a_budget_that_nothing_fits_is_refused_before_work(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [article(n) for n in range(600)])
    wanted = config(tmp_path, source, memory_budget=1_000)
    with pytest.raises(UsageError, match="memory_budget=1000: "):
        dry_run(wanted)


def test_what_cannot_be_read_leaves_a_plan(tmp_path: Path) -> None:
    (tmp_path / "broken.pdf").write_bytes(b"no pdf at all")
    plan = dry_run(config(tmp_path, tmp_path / "broken.pdf"))
    assert plan.chunks == 1
    assert plan.chunks_per_second == 0.0


@given(sizes=st.lists(st.integers(0, 1 << 22), min_size=1, max_size=30), bound=st.integers(1 << 12, 1 << 18))
def test_parts_are_drawn_once_each_until_there_are_enough(sizes: list[int], bound: int) -> None:
    files = [SourceFile("s", f"/s/{n}.jsonl", f"{n}.jsonl", size, "1", "jsonl") for n, size in enumerate(sizes)]
    with compared(files) as changes:
        parts = list(trial._draw(changes, bound))
        assert parts == list(trial._draw(changes, bound))
    assert len({(part.file.doc_id, part.start) for part in parts}) == len(parts) >= 1
    assert all(part.size <= bound for part in parts)
    assert sum(part.size for part in parts[:-1]) < trial.SOURCE_BYTES


@given(rows=st.integers(1_000, 10**9), more=st.integers(1, 10**9), shards=st.integers(1, 2_000))
def test_more_rows_take_more_of_everything(rows: int, more: int, shards: int) -> None:
    for rung in RUNGS:
        factory = rung.factory(Wanted(rows, 384, shards))
        if factory is None:
            continue
        small, large = expected(rows, factory, shards), expected(rows + more, factory, shards)
        assert forecast.disk(TRIED, large) >= forecast.disk(TRIED, small)
        assert forecast.serving_memory(TRIED, large) >= forecast.serving_memory(TRIED, small)
        less, greater = (forecast.seconds(TRIED, item, MACHINE) for item in (small, large))
        assert all(greater[stage] >= less[stage] - 1e-9 for stage in less)


def test_a_large_quantiser_is_stored_once() -> None:
    small, large = expected(10**9, "IVF1000_HNSW32,SQ8", 100), expected(10**9, "IVF126491_HNSW32,SQ8", 100)
    assert forecast.disk(TRIED, large) - forecast.disk(TRIED, small) < 3 * 126_491 * 4 * 384
