"""Journals: what is written can be read at once and is whole in the end, on a disk and in a bucket."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from s3_server import Bucket, s3_server
from waiting import wait_for

from ray_jobs.errors import StorageError
from ray_jobs.storage import LocalStorage, ObjectStorage, Storage
from ray_jobs.storage import journal as journals
from ray_jobs.storage.journal import journal, read_lines

KEY = "runs/1/events.jsonl"


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with s3_server() as found:
        yield found


@pytest.fixture
def remote(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ObjectStorage:
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(journals, "PART_SECONDS", 0.05)
    monkeypatch.setattr(journals, "_SLOWEST", 0.05)
    return ObjectStorage(f"s3://bucket/{tmp_path.name}", cache=tmp_path / "cache")


lines = st.lists(st.text(st.characters(blacklist_characters="\n\r", blacklist_categories=("Cs",)), max_size=30))


@given(lines)
def test_a_journal_on_a_disk_holds_what_was_written(written: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        storage = LocalStorage(Path(folder))
        with journal(storage, KEY) as log:
            for number, line in enumerate(written):
                log.write(line)
                assert list(read_lines(storage, KEY)) == written[: number + 1]
        assert list(read_lines(storage, KEY)) == written


def test_a_line_that_was_cut_short_is_not_read(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    with journal(storage, KEY) as log:
        log.write("whole")
    with (tmp_path / KEY).open("a") as file:
        file.write('{"time": "20')
    assert list(read_lines(storage, KEY)) == ["whole"]


def test_no_journal_has_no_lines(tmp_path: Path) -> None:
    assert list(read_lines(LocalStorage(tmp_path), KEY)) == []


def keys(storage: Storage) -> list[str]:
    return [item.key for item in storage.list("runs")]


def test_a_journal_in_a_bucket_can_be_read_while_it_grows_and_is_one_object_in_the_end(remote: ObjectStorage) -> None:
    with journal(remote, KEY) as log:
        log.write("first")
        wait_for(lambda: list(read_lines(remote, KEY)) == ["first"], 20)
        log.write("second")
        wait_for(lambda: list(read_lines(remote, KEY)) == ["first", "second"], 20)
        assert all(key.startswith(f"{KEY}.parts/") for key in keys(remote))
        log.write("third")
    assert keys(remote) == [KEY]
    assert list(read_lines(remote, KEY)) == ["first", "second", "third"]


def test_a_bucket_that_refuses_costs_lines_and_not_the_work(
    remote: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def refuse(key: str, *_: object) -> None:
        tried.append(key)
        raise StorageError("503")

    monkeypatch.setattr(remote, "create", refuse)
    with journal(remote, KEY) as log:
        log.write("first")
        wait_for(lambda: bool(tried), 20)
        monkeypatch.undo()
        log.write("second")
    assert list(read_lines(remote, KEY)) == ["first", "second"]


def test_a_disk_that_refuses_costs_lines_and_not_the_work(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where a folder should be")
    with journal(LocalStorage(tmp_path), KEY) as log:
        log.write("lost")
    assert list(read_lines(LocalStorage(tmp_path), KEY)) == []
