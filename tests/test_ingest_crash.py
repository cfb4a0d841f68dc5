"""A crash at any write of an ingest run: the old snapshot or the new one is live, and the same command finishes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ingest_runs import all_rows, article, ingest, live, write_jsonl

from ray_jobs.errors import ConflictError
from ray_jobs.index import layout
from ray_jobs.index.verify import verify
from ray_jobs.ingest import job, work
from ray_jobs.storage import LocalStorage

pytest_plugins = ["in_process"]
pytestmark = pytest.mark.usefixtures("in_process")

DIVIDED = {"group_bytes": 20_000, "shards": 2}


class Killed(BaseException):
    """The process is gone; nothing catches it."""


class Dying(LocalStorage):
    """A store whose process is killed before its `last` + 1st write, and writes nothing from then on."""

    def __init__(self, root: Path, last: int | None = None) -> None:
        super().__init__(root)
        self.last = last
        self.writes: list[str] = []

    def create(self, key: str, data: bytes) -> None:
        self._written(key)
        super().create(key, data)

    def upload(self, key: str, path: Path) -> None:
        self._written(key)
        super().upload(key, path)

    def delete(self, key: str) -> None:
        self._written(key)
        super().delete(key)

    def _written(self, key: str) -> None:
        if len(self.writes) == self.last:
            raise Killed
        self.writes.append(key)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What is ingested over a first snapshot of other documents."""
    return old_and_new(tmp_path)


def old_and_new(tmp_path: Path, **settings: object) -> Path:
    """Make a first snapshot; returns what is ingested over it."""
    ingest(tmp_path, write_jsonl(tmp_path / "before.jsonl", [article(n) for n in range(5, 20)]), **settings)
    return write_jsonl(tmp_path / "a.jsonl", [article(n) for n in range(10, 58)])


def stored_in(monkeypatch: pytest.MonkeyPatch, storage: LocalStorage) -> None:
    for module in (job, work):
        monkeypatch.setattr(module, "open_storage", lambda uri: storage)


def receipts(storage: LocalStorage) -> int:
    return sum("/receipts/" in item.key for item in storage.list(layout.works("test")))


def forget_the_dead(folder: Path) -> None:
    """The process that was killed is this one: it would count as alive."""
    storage = LocalStorage(folder / "store")
    for item in list(storage.list(layout.leases("test"))):
        storage.delete(item.key)


@pytest.mark.parametrize(
    "more", [{}, pytest.param({"deduplicate": {"mode": "near", "threshold": 0.5}}, marks=pytest.mark.chaos)]
)
def test_a_crash_at_any_write_leaves_the_old_or_the_new_snapshot_and_the_next_run_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, object]
) -> None:
    source = old_and_new(tmp_path, **more)
    settings = {**DIVIDED, **more}
    pristine, old = tmp_path / "pristine", all_rows(tmp_path)
    shutil.copytree(tmp_path / "store", pristine)
    undisturbed = Dying(tmp_path / "store")
    stored_in(monkeypatch, undisturbed)
    assert ingest(tmp_path, source, **settings).found == {}
    new = all_rows(tmp_path)
    assert len(new) > len(old)
    assert (live(tmp_path).counts.duplicates > 0) == ("deduplicate" in more)
    finished = 0
    for last in range(len(undisturbed.writes)):
        shutil.rmtree(tmp_path / "store")
        shutil.copytree(pristine, tmp_path / "store")
        storage = Dying(tmp_path / "store", last)
        stored_in(monkeypatch, storage)
        with pytest.raises(Killed):
            ingest(tmp_path, source, **settings)
        stored_in(monkeypatch, LocalStorage(tmp_path / "store"))
        forget_the_dead(tmp_path)
        published = live(tmp_path).number == 2
        assert all_rows(tmp_path) == (new if published else old)
        left = receipts(storage)
        summary = ingest(tmp_path, source, **settings)
        assert summary.outcome == ("unchanged" if published else "published")
        if not published:
            assert sum(summary.found.values()) == left
            assert receipts(storage) == 0
            finished += left > 0
        assert all_rows(tmp_path) == new
        assert live(tmp_path).counts.check() == []
        assert verify(storage, live(tmp_path)).problems == ()
    assert finished > len(undisturbed.writes) / 3


@pytest.fixture
def paused(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callable[[], None]]]:
    """What happens, once, while a run is between its last object and its commit."""
    meanwhile: list[Callable[[], None]] = []
    real = job._verify

    def verified(*arguments: object) -> object:
        if meanwhile:
            meanwhile.pop()()
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(job, "_verify", verified)
    yield meanwhile
    assert not meanwhile


def test_a_run_that_was_thought_lost_cannot_commit_over_the_one_that_took_its_place(
    tmp_path: Path, source: Path, paused: list[Callable[[], None]]
) -> None:
    storage = LocalStorage(tmp_path / "store")
    won: list[object] = []

    def another_run() -> None:
        forget_the_dead(tmp_path)
        won.append(ingest(tmp_path, source, **DIVIDED))

    paused.append(another_run)
    with pytest.raises(ConflictError, match="snapshot 2 was published by another run meanwhile; it is live and intact"):
        ingest(tmp_path, source, **DIVIDED)
    assert len(won) == 1
    assert live(tmp_path).number == 2
    assert verify(storage, live(tmp_path)).problems == ()


def test_a_second_run_is_told_before_it_reads_anything(
    tmp_path: Path, source: Path, paused: list[Callable[[], None]]
) -> None:
    def another_run() -> None:
        with pytest.raises(ConflictError, match="index=test: another run writes to it"):
            ingest(tmp_path, source, **DIVIDED)

    paused.append(another_run)
    assert ingest(tmp_path, source, **DIVIDED).snapshot == 2


def test_files_that_are_added_while_a_run_is_down_cost_only_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for part in range(12):
        write_jsonl(folder / f"{part:02d}.jsonl", [article(n) for n in range(100 * part + 5, 100 * part + 30)])
    undisturbed = Dying(tmp_path / "store")
    stored_in(monkeypatch, undisturbed)
    ingest(tmp_path, folder, **DIVIDED)
    shutil.rmtree(tmp_path / "store")
    at_the_template = next(n for n, key in enumerate(undisturbed.writes) if "template" in key)
    stored_in(monkeypatch, Dying(tmp_path / "store", at_the_template))
    with pytest.raises(Killed):
        ingest(tmp_path, folder, **DIVIDED)
    stored_in(monkeypatch, LocalStorage(tmp_path / "store"))
    forget_the_dead(tmp_path)
    before = receipts(undisturbed)
    write_jsonl(folder / "055.jsonl", [{"id": "new", "text": "What came meanwhile."}])
    summary = ingest(tmp_path, folder, **DIVIDED)
    assert summary.counts.documents == 12 * 25 + 1
    assert sum(summary.found.values()) >= before - 4
