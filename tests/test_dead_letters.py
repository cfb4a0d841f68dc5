"""Dead letters: each says why, is told to whoever asks, and vanishes once what it stands for is indexed or gone."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from command_line import run, write_notes
from every_format import write_every_format
from hostile_files import write_every_hostile_file
from ingest_runs import article, doc_ids, ingest, live, write_jsonl

from ray_jobs.corpus.readers import txt
from ray_jobs.corpus.reasons import REASONS
from ray_jobs.errors import RejectedError
from ray_jobs.index.manifest import FileRecord
from ray_jobs.index.verify import verify
from ray_jobs.ingest import job, outcome
from ray_jobs.ingest.dead_letters import (
    LONGEST_MESSAGE,
    DeadLetter,
    differ,
    read_letters,
    sources_of,
    without_sources,
    write_dead_letters,
)
from ray_jobs.storage import LocalStorage

pytest_plugins = ["in_process", "hostile_helper"]
pytestmark = pytest.mark.usefixtures("in_process")

Capsys = pytest.CaptureFixture[str]


def letters(tmp_path: Path) -> list[DeadLetter]:
    found = read_letters(LocalStorage(tmp_path / "store"), live(tmp_path).dead_letters)
    return sorted(found, key=lambda letter: (letter.source, letter.locator))


def places(tmp_path: Path) -> list[tuple[str, str]]:
    return [(letter.source, letter.reason) for letter in letters(tmp_path)]


@pytest.mark.usefixtures("hostile")
def test_beside_every_hostile_file_every_good_document_is_indexed(tmp_path: Path) -> None:
    folder = write_every_format(tmp_path / "corpus")
    good = ingest(tmp_path, folder, store=str(tmp_path / "other")).counts.indexed
    owed = write_every_hostile_file(folder / "hostile")
    for name, line, reason in (("hangs", "sleep", "timed-out"), ("crashes", "crash", "crashed")):
        (folder / "hostile" / f"{name}.hostile").write_text(line)
        owed[f"{name}.hostile"] = {reason}
    summary = ingest(tmp_path, folder, max_failed=1, group_bytes=256 << 20, limits={"seconds": 6})
    reasons: dict[str, set[str]] = {}
    for letter in letters(tmp_path):
        reasons.setdefault(letter.source.removeprefix("corpus/hostile/"), set()).add(letter.reason)
    assert reasons == owed
    assert summary.counts.check() == []
    assert summary.counts.failed + summary.counts.sources_failed == len(letters(tmp_path))
    assert summary.reasons == Counter(letter.reason for letter in letters(tmp_path))
    beside = {"utf8-1", "utf8-2", "nulls-1", "nulls-2", "line-1", "line-2", "csv-1", "csv-2", "bomb", "gz0"}
    assert beside <= set(doc_ids(tmp_path))
    assert summary.counts.indexed == good + len(beside | {"gz1", "gz2"})
    assert verify(LocalStorage(tmp_path / "store"), live(tmp_path)).problems == ()


def test_what_failed_is_tried_again_only_when_asked_and_its_letters_vanish_once_it_is_indexed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    rows = [article(n) for n in range(1, 5)]
    write_jsonl(folder / "long.jsonl", [*rows, {"id": "long", "text": "word " * 1000}])
    write_jsonl(folder / "good.jsonl", [article(n) for n in range(5, 9)])
    (folder / "bad.jsonl").write_text("{broken\n")
    ingest(tmp_path, folder, max_failed=1, limits={"line_bytes": 4000})
    before = [("corpus/bad.jsonl", "bad-json"), ("corpus/long.jsonl", "too-long")]
    assert places(tmp_path) == before
    assert ingest(tmp_path, folder, max_failed=1).outcome == "unchanged"
    summary = ingest(tmp_path, folder, retry_dead_letters=True, max_failed=1)
    assert (summary.outcome, summary.counts.unchanged, summary.counts.kept) == ("published", 1, 8)
    assert "long" in doc_ids(tmp_path)
    assert places(tmp_path) == before[:1]
    assert summary.counts.check() == []


def test_what_fails_again_stays_once_and_publishes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "bad.jsonl").write_text("{broken\n" + json.dumps(article(3)) + "\n")
    (folder / "bad.pdf").write_bytes(b"no PDF")
    write_jsonl(folder / "year.jsonl", [article(4, year="unknown"), article(5)])
    write_jsonl(folder / "years.jsonl", [article(6, year=2000), {**article(3), "text": "taken id"}])
    ingest(tmp_path, folder, max_failed=1, metadata={"year": "int"})
    before = letters(tmp_path)
    assert Counter(letter.reason for letter in before) == {
        "bad-json": 1,
        "unreadable": 1,
        "misfit": 1,
        "duplicate-id": 1,
    }
    kept = {item.key for item in LocalStorage(tmp_path / "store").list("indexes/test")}
    again = ingest(tmp_path, folder, max_failed=1, metadata={"year": "int"}, retry_dead_letters=True)
    assert (again.outcome, again.snapshot) == ("unchanged", 1)
    assert again.reasons == Counter(letter.reason for letter in before)
    assert letters(tmp_path) == before
    assert {item.key for item in LocalStorage(tmp_path / "store").list("indexes/test")} == kept


def test_without_anything_that_failed_a_retry_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [article(n) for n in range(1, 5)])
    ingest(tmp_path, source)

    def never(*given: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(job, "session", never)
    assert ingest(tmp_path, source, retry_dead_letters=True).outcome == "unchanged"


def test_a_new_file_that_cannot_be_read_is_told_and_recorded(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    write_jsonl(folder / "good.jsonl", [article(1)])
    ingest(tmp_path, folder)
    (folder / "bad.pdf").write_bytes(b"no PDF")
    summary = ingest(tmp_path, folder, max_failed=1)
    assert (summary.outcome, summary.reasons) == ("published", {"unreadable": 1})
    assert places(tmp_path) == [("corpus/bad.pdf", "unreadable")]
    assert ingest(tmp_path, folder, max_failed=1).outcome == "unchanged"


def test_a_retry_does_not_go_on_with_the_failures_of_a_run_that_did_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_notes(tmp_path / "notes")
    with monkeypatch.context() as away:
        away.setattr(outcome, "make_manifest", interrupted)
        away.setattr(txt, "read", refused)
        with pytest.raises(KeyboardInterrupt):
            ingest(tmp_path, write_jsonl(tmp_path / "a.jsonl", [article(5)]), source, max_failed=1)
    summary = ingest(tmp_path, tmp_path / "a.jsonl", source, retry_dead_letters=True)
    assert (summary.reasons, summary.counts.indexed) == ({}, 7)


def refused(*given: object) -> None:
    raise OSError("the disk is away")


def interrupted(*given: object) -> None:
    raise KeyboardInterrupt


def test_with_prune_what_failed_is_kept_until_it_is_read_whole(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    source = write_jsonl(folder / "a.jsonl", [article(n) for n in range(1, 4)])
    write_jsonl(folder / "b.jsonl", [article(9)])
    ingest(tmp_path, folder)
    write_jsonl(source, [article(1), {"id": "long", "text": "word " * 1000}])
    ingest(tmp_path, folder, prune=True, max_failed=1, limits={"line_bytes": 4000})
    assert doc_ids(tmp_path) == ["a1", "a2", "a3", "a9"]
    ingest(tmp_path, folder, prune=True, retry_dead_letters=True)
    assert (doc_ids(tmp_path), places(tmp_path)) == (["a1", "a9", "long"], [])


def test_letters_of_a_source_that_is_pruned_vanish_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", [article(1)])
    (folder / "b.pdf").write_bytes(b"no PDF")
    ingest(tmp_path, folder, max_failed=1)
    (folder / "b.pdf").unlink()
    assert ingest(tmp_path, folder, retry_dead_letters=True).outcome == "unchanged"
    assert places(tmp_path) == [("corpus/b.pdf", "unreadable")]
    ingest(tmp_path, folder, prune=True)
    assert places(tmp_path) == []


def test_a_rebuild_from_stored_texts_keeps_the_letters_of_what_it_did_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", [article(1), article(2, year="unknown"), article(3, year=2000)])
    (folder / "b.pdf").write_bytes(b"no PDF")
    ingest(tmp_path, folder, max_failed=1, metadata={"year": "int"})
    before = places(tmp_path)
    ingest(tmp_path, folder, max_failed=1, metadata={"year": "int"}, retrain=True)
    assert places(tmp_path) == before
    ingest(tmp_path, folder, max_failed=1, metadata={"year": "string"}, retry_dead_letters=True)
    assert (doc_ids(tmp_path), places(tmp_path)) == (["a1", "a2", "a3"], [("corpus/b.pdf", "unreadable")])


def test_too_many_failures_are_tried_again_without_being_asked(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text("".join(json.dumps(article(n)) + "\n" for n in range(1, 5)) + "{broken\n")
    with pytest.raises(RejectedError, match="1 bad-json"):
        ingest(tmp_path, source)


@pytest.mark.usefixtures("elsewhere")
def test_the_command_lists_them_with_what_mends_them(capsys: Capsys, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(article(3)) + "\n{broken\n")
    ingest(tmp_path, tmp_path / "a.jsonl", max_failed=1)
    shown = run(capsys, "index", "dead-letters", "test", "--store", tmp_path / "store").succeeded().splitlines()
    assert shown[0] == "test snapshot 1: 1 dead letters"
    assert shown[1].split()[:4] == ["bad-json", "a.jsonl", "(byte", f"{len(json.dumps(article(3))) + 1}):"]
    assert shown[2] == f"1 bad-json: {REASONS['bad-json']}"
    found = json.loads(
        run(capsys, "index", "dead-letters", "test", "--store", tmp_path / "store", "--json").succeeded()
    )
    assert (found["index"], found["snapshot"], found["reasons"]) == ("test", 1, {"bad-json": 1})
    assert [(letter["source"], letter["reason"]) for letter in found["dead_letters"]] == [("a.jsonl", "bad-json")]


@pytest.mark.parametrize("text", ["\ud800", "\x00", "x" * 100_000])
def test_whatever_a_file_holds_can_be_said_of_it(tmp_path: Path, text: str) -> None:
    storage = LocalStorage(tmp_path)
    record = write_dead_letters(storage, "x", [DeadLetter("s", None, text, "bad-id", text)], tmp_path)
    assert record is not None
    (letter,) = read_letters(storage, [record])
    assert max(len(letter.message), len(letter.locator)) <= LONGEST_MESSAGE


def test_letters_are_taken_out_and_compared_by_their_source(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)

    def written(*pairs: tuple[str, str]) -> list[FileRecord]:
        made = [DeadLetter(source, None, locator, "bad-json", "m") for source, locator in pairs]
        with storage.scratch() as folder:
            record = write_dead_letters(storage, "x", made, folder)
        return [] if record is None else [record]

    one, other = written(("a", "1"), ("b", "1")), written(("c", "1"))
    assert set(sources_of(storage, [*one, *other])) == {"a", "b", "c"}
    left = list(without_sources(storage, "x", [*one, *other], {"a", "d"}.intersection))
    assert set(sources_of(storage, left)) == {"b", "c"}
    assert left[1:] == other
    assert list(without_sources(storage, "x", one, {"a", "b"}.intersection)) == []
    assert not differ(storage, one, written(("b", "1"), ("e", "1"), ("a", "1")), {"a", "b"}.intersection)
    for changed in ([], written(("a", "2"), ("b", "1")), written(("a", "1"), ("a", "1"), ("b", "1"))):
        assert differ(storage, one, changed, {"a", "b"}.intersection)
    assert not differ(storage, one, [], {"z"}.intersection)
    assert written() == []


def test_more_letters_than_fit_in_memory_at_once_are_all_kept(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text(json.dumps(article(3)) + "\n" + "x\n" * 25_000)
    summary = ingest(tmp_path, source, max_failed=1, group_bytes=1 << 22)
    assert summary.reasons == {"bad-json": 25_000}
    assert len(letters(tmp_path)) == len({letter.locator for letter in letters(tmp_path)}) == 25_000
