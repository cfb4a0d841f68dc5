"""Rollback and garbage collection: what is live stays whole, and nothing that a kept snapshot needs goes."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from command_line import run
from ingest_runs import all_rows, article, ingest, live, write_jsonl

from ray_jobs.errors import ConflictError, NotFoundError, UsageError
from ray_jobs.index import layout, manifest
from ray_jobs.index.verify import verify
from ray_jobs.ingest.collect import collect
from ray_jobs.ingest.lease import held
from ray_jobs.ingest.rollback import rollback
from ray_jobs.ingest.work import Work
from ray_jobs.storage import LocalStorage

pytest_plugins = ["in_process"]
pytestmark = pytest.mark.usefixtures("in_process")

Capsys = pytest.CaptureFixture[str]
DAY = 24 * 3600.0


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    """An index of three snapshots: articles 1 to 9, then with 5 to 14, then without 1 to 4."""
    for numbers in (range(1, 10), range(5, 15), range(5, 12)):
        write_jsonl(tmp_path / "a.jsonl", [article(n) for n in numbers])
        ingest(tmp_path, tmp_path / "a.jsonl", prune=numbers == range(5, 12))
    return LocalStorage(tmp_path / "store")


def keys(storage: LocalStorage) -> set[str]:
    return {item.key for item in storage.list(layout.index_folder("test"))}


def age(storage: LocalStorage, seconds: float) -> None:
    """Make every object older."""
    for item in storage.list(layout.index_folder("test")):
        os.utime(storage.root / item.key, (item.modified - seconds, item.modified - seconds))


def test_a_rollback_brings_rows_ledger_and_all_back_and_can_be_rolled_back(
    tmp_path: Path, storage: LocalStorage
) -> None:
    third = all_rows(tmp_path)
    assert rollback(storage, "test", 1).number == 4
    first = all_rows(tmp_path)
    assert {row["doc_id"] for row in first} == {f"a{n}" for n in range(1, 10)}
    assert verify(storage, live(tmp_path)).problems == ()
    again = ingest(tmp_path, tmp_path / "a.jsonl", prune=True)
    assert (again.snapshot, again.counts.kept) == (5, 5)
    assert all_rows(tmp_path) == third
    assert rollback(storage, "test", 4).number == 6
    assert all_rows(tmp_path) == first


def test_what_cannot_be_rolled_back_to_is_refused(storage: LocalStorage) -> None:
    with pytest.raises(UsageError, match="snapshot=3 is the live one of test"):
        rollback(storage, "test", 3)
    with pytest.raises(NotFoundError, match=r"snapshot=9: .* expected one of 1, 2, 3"):
        rollback(storage, "test", 9)
    storage.delete(manifest.read(storage, "test", 1).ledger[0].key)
    with pytest.raises(UsageError, match=r"snapshot=1: cannot be live again \(.*ledger"):
        rollback(storage, "test", 1)
    assert manifest.numbers(storage, "test") == [1, 2, 3]


def test_nothing_that_a_snapshot_names_is_collected(tmp_path: Path, storage: LocalStorage) -> None:
    before, named = all_rows(tmp_path), keys(storage)
    for folder in ("documents", "shards/lost", "deleted", "ledger/lost"):
        storage.create(f"{layout.index_folder('test')}/{folder}/orphan.bin", b"1234")
    age(storage, 2 * DAY)
    dry = collect(storage, "test", None, DAY, dry_run=True)
    assert (dry.objects, dry.bytes, len(keys(storage))) == (4, 16, len(named) + 4)
    assert collect(storage, "test", None, DAY) == dry
    assert keys(storage) == named
    assert all_rows(tmp_path) == before
    for number in (1, 2, 3):
        assert verify(storage, manifest.read(storage, "test", number)).problems == ()


@pytest.mark.parametrize("keep", [1, 2])
def test_snapshots_beyond_those_to_be_kept_go_with_what_they_alone_name(
    tmp_path: Path, storage: LocalStorage, keep: int
) -> None:
    before = all_rows(tmp_path)
    age(storage, 2 * DAY)
    kept = [1, 2, 3][-keep:]
    assert collect(storage, "test", keep, DAY).snapshots == tuple([1, 2, 3][:-keep])
    assert manifest.numbers(storage, "test") == kept
    named = {file.key for number in kept for file in manifest.read(storage, "test", number).files()}
    assert keys(storage) == named | {layout.manifest("test", number) for number in kept}
    assert all_rows(tmp_path) == before
    assert verify(storage, live(tmp_path)).problems == ()


def test_what_is_young_stays(storage: LocalStorage) -> None:
    before = keys(storage)
    storage.create(f"{layout.index_folder('test')}/documents/orphan.bin", b"1234")
    assert collect(storage, "test", 1, DAY).objects == 0
    assert keys(storage) > before


def test_what_an_unfinished_run_may_go_on_with_stays_until_that_run_is_old(storage: LocalStorage) -> None:
    storage.create(f"{layout.index_folder('test')}/documents/orphan.bin", b"1234")
    age(storage, 2 * DAY)
    work = Work(storage, "test", 3)
    work.keep("staged", "k", "names the orphan")
    assert collect(storage, "test", None, DAY).objects == 0
    age(storage, 2 * DAY)
    assert collect(storage, "test", None, DAY).objects == 2
    assert not work.begun()


def test_while_a_run_writes_nothing_is_collected_or_rolled_back(storage: LocalStorage) -> None:
    with held(storage, "test", "other"):
        for attempt in (lambda: collect(storage, "test", 1, 0), lambda: rollback(storage, "test", 1)):
            with pytest.raises(ConflictError, match="another run writes to it"):
                attempt()


def test_cut_short_anywhere_every_snapshot_that_is_left_is_whole(tmp_path: Path, storage: LocalStorage) -> None:
    class Cut(LocalStorage):
        left = 0

        def delete(self, key: str) -> None:
            if "/leases/" not in key:
                if not self.left:
                    raise KeyboardInterrupt
                self.left -= 1
            super().delete(key)

    age(storage, 2 * DAY)
    cut, chance = Cut(storage.root), random.Random(0)
    while manifest.numbers(storage, "test") != [3] or collect(storage, "test", 1, DAY, dry_run=True).objects:
        cut.left = chance.randrange(4)
        try:
            collect(cut, "test", 1, DAY)
        except KeyboardInterrupt:
            for number in manifest.numbers(storage, "test"):
                assert verify(storage, manifest.read(storage, "test", number)).problems == ()


def test_from_the_command_line(tmp_path: Path, storage: LocalStorage, capsys: Capsys) -> None:
    store = ("--store", str(storage.root))
    shown = run(capsys, "index", "rollback", "test", "--snapshot", "2", *store).succeeded()
    assert shown == "published snapshot 4 of test: what snapshot 2 holds\n"
    shown = run(capsys, "index", "gc", "test", "--keep", "1", "--grace-hours", "0", "--dry-run", *store).succeeded()
    assert shown.startswith("would remove 3 snapshots and ")
    assert (
        run(capsys, "index", "gc", "test", *store).succeeded()
        == "removed 0 snapshots and 0 objects (0 bytes) of test\n"
    )
    run(capsys, "index", "rollback", "test", *store).refused("rollback needs --snapshot NUMBER", code=2)
    run(capsys, "index", "list", "--keep", "1", *store).refused("keep and dry_run are for gc", code=2)
    run(capsys, "index", "gc", "absent", *store).refused("index=absent", code=1)
