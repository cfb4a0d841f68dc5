"""Compaction changes no answer, and what comes after it finds every document where it lies now."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from command_line import run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ingest_runs import all_rows, doc_ids, ingest, live, write_jsonl

from ray_jobs.index import layout, manifest
from ray_jobs.index.manifest import FileRecord, Manifest, ShardRecord
from ray_jobs.index.search import SearchConfig
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.index.verify import verify
from ray_jobs.ingest import compact_job, delete
from ray_jobs.ingest.compact import plan
from ray_jobs.ingest.compact_settings import CompactSettings
from ray_jobs.ingest.delete import DeleteConfig
from ray_jobs.models.for_queries import load_for_queries
from ray_jobs.storage import LocalStorage

pytest_plugins = ["in_process"]
pytestmark = pytest.mark.usefixtures("in_process")

Capsys = pytest.CaptureFixture[str]


def rows(*numbers: int, word: str = "apple") -> list[dict[str, object]]:
    kept = [{"id": f"d{n:02d}", "text": f"The {word} of number {n}. " * (1 + n % 4 * 6)} for n in numbers]
    return [{**row, "year": 2000 + n} if n % 2 else row for n, row in zip(numbers, kept, strict=True)]


def answers(folder: Path, where: str | None = None) -> list[list[tuple[str, int, float]]]:
    snapshot = Snapshot.open(LocalStorage(folder / "store"), "test")
    embedder = load_for_queries(None, snapshot.manifest.embedder)
    found = []
    for mode in ("dense", "lexical", "hybrid"):
        config = SearchConfig.model_validate({"mode": mode, "k": 7, "by": "chunk", "where": where})
        for hits in snapshot.search(["apple number 3", "fig", "of number"], config, embedder):
            found.append([(hit.chunk_id, hit.start, hit.score) for hit in hits])
    return found


def compacted(folder: Path, **changes: object) -> Manifest:
    wanted = CompactSettings.model_validate({"max_dead": 0, **changes})
    return compact_job.run(LocalStorage(folder / "store"), "test", wanted)


def deleted(folder: Path, *ids: str) -> None:
    delete.run(DeleteConfig(ids=ids, index="test", store=str(folder / "store")))


@pytest.mark.parametrize("index_type", ["Flat", "IVF4,SQ8"])
def test_compaction_changes_no_answer(tmp_path: Path, index_type: str) -> None:
    given_type = {"index_type": index_type, "recall_target": 0.01}
    ingest(tmp_path, write_jsonl(tmp_path / "a.jsonl", rows(*range(30))), shards=3, **given_type)
    ingest(tmp_path, write_jsonl(tmp_path / "b.jsonl", rows(*range(25, 40), word="fig")), **given_type)
    ingest(tmp_path, write_jsonl(tmp_path / "c.jsonl", rows(50)), **given_type)
    deleted(tmp_path, "d03", "d04", "d27")
    stored, before = all_rows(tmp_path), live(tmp_path)
    answered = [answers(tmp_path, where) for where in (None, "year >= 2010")]
    after = compacted(tmp_path)
    assert (after.number, len(after.shards), after.dead_rows) == (before.number + 1, 1, 0)
    assert len(before.shards) == 5
    assert before.dead_rows > 0
    assert all_rows(tmp_path) == stored
    assert [answers(tmp_path, where) for where in (None, "year >= 2010")] == answered
    assert verify(LocalStorage(tmp_path / "store"), after).problems == ()
    assert (after.counts, after.lexical) == (before.counts, before.lexical)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("ingest"), st.sets(st.integers(0, 9), min_size=1, max_size=6), st.sampled_from("xy")),
        st.tuples(st.just("delete"), st.sets(st.integers(0, 9), min_size=1, max_size=2), st.just("")),
        st.tuples(st.just("compact"), st.just(set()), st.just("")),
    ),
    min_size=3,
    max_size=6,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_after_any_history_with_compactions_the_documents_are_those_of_the_history_without(
    steps: list[tuple[str, set[int], str]],
) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        for place, (kind, numbers, word) in enumerate([("ingest", {1, 2}, "x"), *steps]):
            for folder in (Path(one), Path(other)):
                if kind == "ingest":
                    ingest(folder, write_jsonl(folder / f"{word}.jsonl", rows(*sorted(numbers), word=f"{word}{place}")))
                elif kind == "delete":
                    present = set(doc_ids(folder)) & {f"d{n:02d}" for n in numbers}
                    if present:
                        deleted(folder, *sorted(present))
                elif folder == Path(one):
                    compacted(folder)
        compacted(Path(one))
        assert live(Path(one)).dead_rows == 0
        assert all_rows(Path(one)) == all_rows(Path(other))
        assert answers(Path(one)) == answers(Path(other))
        assert live(Path(one)).counts == live(Path(other)).counts
        assert verify(LocalStorage(Path(one) / "store"), live(Path(one))).problems == ()


def test_objects_whose_documents_are_all_dead_are_named_no_more(tmp_path: Path) -> None:
    ingest(tmp_path, write_jsonl(tmp_path / "a.jsonl", rows(1, 2)))
    ingest(tmp_path, write_jsonl(tmp_path / "b.jsonl", rows(3, 4)))
    deleted(tmp_path, "d01", "d02")
    assert len(live(tmp_path).documents) == 2
    [left] = compacted(tmp_path).documents
    assert left in live(tmp_path).documents


def test_an_index_with_nothing_to_do_stays_as_it_is(tmp_path: Path) -> None:
    ingest(tmp_path, write_jsonl(tmp_path / "a.jsonl", rows(1, 2)))
    assert compacted(tmp_path).number == 1
    assert manifest.numbers(LocalStorage(tmp_path / "store"), "test") == [1]


def record(live_rows: int, dead_rows: int) -> ShardRecord:
    files = {
        name: FileRecord(key=name, size=50 * (live_rows + dead_rows), sha256="")
        for name in (layout.ROWS, layout.VECTORS_F16)
    }
    return ShardRecord(id="s", files=files, rows=live_rows + dead_rows, dead_rows=dead_rows, documents=1)


@given(
    shards=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)).filter(any), max_size=12),
    max_dead=st.floats(0, 0.9),
)
def test_what_is_written_anew_has_a_reason_and_fits(shards: list[tuple[int, int]], max_dead: float) -> None:
    records = [record(*sizes) for sizes in shards]
    shard_bytes = 100 * 100
    plans = plan(records, max_dead, shard_bytes)
    placed = [number for group in plans for number in group]
    assert placed == sorted(set(placed))
    for group in plans:
        assert len(group) == 1 or sum(100 * shards[number][0] for number in group) <= shard_bytes + 1e-6
    for number, (alive, dead) in enumerate(shards):
        if dead > max_dead * (alive + dead):
            assert number in placed
        elif 100 * alive >= shard_bytes / 2:
            assert number not in placed


def test_from_the_command_line(tmp_path: Path, capsys: Capsys) -> None:
    ingest(tmp_path, write_jsonl(tmp_path / "a.jsonl", rows(1, 2)))
    ingest(tmp_path, write_jsonl(tmp_path / "a.jsonl", rows(2, 3, word="fig")))
    command = ("index", "compact", "test", "--store", tmp_path / "store")
    shown = run(capsys, *command).succeeded()
    assert shown.startswith("published snapshot 3 of test: 1 shards instead of 2, 0 dead rows instead of ")
    assert run(capsys, *command).succeeded().startswith("nothing to do: the 1 shards of test are full")
