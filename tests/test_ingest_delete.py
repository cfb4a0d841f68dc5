"""Deleted documents are found in no mode, and stay deleted until their content changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import run
from ingest_runs import all_rows, doc_ids, ingest, live, write_jsonl

from ray_jobs.errors import NotFoundError, UsageError
from ray_jobs.index.search import SearchConfig
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.index.verify import verify
from ray_jobs.ingest import delete
from ray_jobs.ingest.delete import DeleteConfig
from ray_jobs.ingest.rollback import rollback
from ray_jobs.ingest.summary import IngestSummary
from ray_jobs.models.for_queries import load_for_queries
from ray_jobs.storage import LocalStorage

pytest_plugins = ["in_process"]
pytestmark = pytest.mark.usefixtures("in_process")

Capsys = pytest.CaptureFixture[str]


def rows(*numbers: int, word: str = "apple") -> list[dict[str, object]]:
    return [{"id": f"d{n}", "text": f"The {word} of number {n}. " * (n + 1), "year": 2000 + n} for n in numbers]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Ten documents in the index, in three shards."""
    source = write_jsonl(tmp_path / "a.jsonl", rows(*range(10)))
    ingest(tmp_path, source, shards=3)
    return source


def deleted(tmp_path: Path, *ids: str, **more: str) -> IngestSummary:
    config = {"ids": ids, "index": "test", "store": str(tmp_path / "store"), **more}
    return delete.run(DeleteConfig.model_validate(config))


def found(tmp_path: Path, mode: str) -> set[str]:
    snapshot = Snapshot.open(LocalStorage(tmp_path / "store"), "test")
    embedder = load_for_queries(None, snapshot.manifest.embedder)
    [hits] = snapshot.search(["apple number"], SearchConfig.model_validate({"mode": mode, "k": 100}), embedder)
    return {hit.doc_id for hit in hits}


def test_what_is_deleted_is_found_in_no_mode_and_the_sums_hold(tmp_path: Path, source: Path) -> None:
    summary = deleted(tmp_path, "d3", "d7")
    assert (summary.snapshot, summary.gone, summary.counts.indexed, summary.counts.kept) == (2, 2, 8, 8)
    assert summary.counts.check() == []
    for mode in ("dense", "lexical", "hybrid"):
        assert found(tmp_path, mode) == {f"d{n}" for n in range(10)} - {"d3", "d7"}
    assert verify(LocalStorage(tmp_path / "store"), live(tmp_path)).problems == ()
    assert len(live(tmp_path).shards) == 3


def test_by_a_filter_all_that_pass_go(tmp_path: Path, source: Path) -> None:
    deleted(tmp_path, where="year >= 2004")
    assert doc_ids(tmp_path) == [f"d{n}" for n in range(4)]


@pytest.mark.parametrize("more", [{}, {"prune": True}, {"retrain": True}, {"language": "german"}])
def test_read_again_it_stays_deleted_until_its_content_changes(
    tmp_path: Path, source: Path, more: dict[str, object]
) -> None:
    deleted(tmp_path, "d3", "d7")
    write_jsonl(source, rows(*range(10), 11))
    assert ingest(tmp_path, source, **more).counts.check() == []
    assert doc_ids(tmp_path) == sorted(f"d{n}" for n in (0, 1, 2, 4, 5, 6, 8, 9, 11))
    source.touch()
    assert ingest(tmp_path, source, **{**more, "retrain": False}).outcome == "unchanged"
    write_jsonl(source, [*rows(*range(7), 8, 9, 11), *rows(7, word="pear")])
    ingest(tmp_path, source, **more)
    assert doc_ids(tmp_path) == sorted(f"d{n}" for n in (0, 1, 2, 4, 5, 6, 7, 8, 9, 11))
    assert "pear" in next(str(row["text"]) for row in all_rows(tmp_path) if row["doc_id"] == "d7")


def test_all_may_be_deleted_and_come_again(tmp_path: Path, source: Path) -> None:
    deleted(tmp_path, where="year >= 2000")
    assert [found(tmp_path, mode) for mode in ("dense", "lexical", "hybrid")] == [set()] * 3
    assert verify(LocalStorage(tmp_path / "store"), live(tmp_path)).problems == ()
    write_jsonl(source, rows(1, 2, word="fig"))
    ingest(tmp_path, source)
    assert doc_ids(tmp_path) == ["d1", "d2"]


def test_a_rollback_brings_back_what_was_deleted(tmp_path: Path, source: Path) -> None:
    before = all_rows(tmp_path)
    deleted(tmp_path, "d3")
    rollback(LocalStorage(tmp_path / "store"), "test", 1)
    assert all_rows(tmp_path) == before


@pytest.mark.parametrize(
    ("ids", "where", "error", "message"),
    [
        (
            ("d1", "d99", "x"),
            None,
            NotFoundError,
            r"id=d99: index test has no such document \(and 1 more\); nothing was",
        ),
        ((), "year > 2100", NotFoundError, "where=year > 2100: no document of test passes; nothing was deleted"),
        ((), "yaer > 2000", UsageError, "yaer"),
        ((), "year >", UsageError, "year >"),
    ],
)
def test_what_is_not_there_is_told_and_nothing_is_deleted(
    tmp_path: Path, source: Path, ids: tuple[str, ...], where: str | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        deleted(tmp_path, *ids, **({} if where is None else {"where": where}))
    assert live(tmp_path).number == 1
    assert not list(LocalStorage(tmp_path / "store").list("indexes/test/leases"))


def test_what_is_deleted_already_is_not_there(tmp_path: Path, source: Path) -> None:
    deleted(tmp_path, "d3")
    with pytest.raises(NotFoundError, match="id=d3"):
        deleted(tmp_path, "d3")


def test_from_the_command_line(tmp_path: Path, source: Path, capsys: Capsys) -> None:
    command = ("delete", "--index", "test", "--store", tmp_path / "store")
    shown = run(capsys, *command, "d1", "d2").succeeded().splitlines()
    assert shown[0].startswith("published snapshot 2 of test")
    assert shown[1] == "gone      2 documents of before, replaced or removed"
    assert doc_ids(tmp_path) == [f"d{n}" for n in (0, *range(3, 10))]
    run(capsys, *command).refused("expected either ids of documents or where", code=2)
    run(capsys, *command, "d4", "--where", "year = 2004").refused("expected either ids of documents or where", code=2)
    run(capsys, *command, "--index", "absent", "d1").refused("index=absent", "it has: test", code=1)
