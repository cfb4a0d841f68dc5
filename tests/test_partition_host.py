"""What one partition holds: its shards, in every version that somebody searches."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_index import build_index, make_documents
from waiting import wait_for

from ray_jobs.errors import CorruptError, NotFoundError
from ray_jobs.index import layout
from ray_jobs.index.manifest import commit, read
from ray_jobs.storage import LocalStorage
from serve.partition import PartitionHost
from serve.partition_messages import Missing, StatisticsCall, Version

NOTHING: frozenset[str] = frozenset()


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "store")


def publish(storage: LocalStorage, folder: Path, number: int, seed: int = 1) -> None:
    commit(storage, build_index(storage, folder / f"b{number}", make_documents(seed, 30, 10), 5, number=number))


def republish(storage: LocalStorage, old: int, number: int) -> None:
    """A snapshot with the content of an older one, as a rollback makes it."""
    commit(storage, read(storage, "small", old).model_copy(update={"number": number, "parent": number - 1}))


def rows(host: PartitionHost, number: int) -> int | None:
    """The rows that the host searches in a version; None when it does not hold it."""
    (found,) = host.statistics([StatisticsCall(Version("small", number), NOTHING, ())])
    return None if isinstance(found, Missing) else found.lexical.documents


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_partitions_hold_every_row_once(storage: LocalStorage, tmp_path: Path, count: int) -> None:
    publish(storage, tmp_path, 1)
    hosts = [PartitionHost(storage, ["small"], position, count, 30) for position in range(count)]
    for host in hosts:
        host.follow()
    total = sum(record.rows for record in read(storage, "small", 1).shards)
    assert sum(rows(host, 1) or 0 for host in hosts) == total


def test_the_newest_two_versions_stay_and_older_ones_go(storage: LocalStorage, tmp_path: Path) -> None:
    host = PartitionHost(storage, ["small"], 0, 1, drain_s=0.0)
    for number in (1, 2, 3):
        publish(storage, tmp_path, number, seed=number)
        host.follow()
    assert sorted(version.number for version in host.held([])) == [2, 3]


def test_a_version_in_use_stays(storage: LocalStorage, tmp_path: Path) -> None:
    host = PartitionHost(storage, ["small"], 0, 1, drain_s=60.0)
    for number in (1, 2, 3, 4):
        publish(storage, tmp_path, number, seed=number)
        host.follow()
        host.held([Version("small", 1)])
    assert 1 in {version.number for version in host.held([])}


def test_all_snapshots_published_meanwhile_are_passed_over(storage: LocalStorage, tmp_path: Path) -> None:
    publish(storage, tmp_path, 1)
    host = PartitionHost(storage, ["small"], 0, 1, 30)
    host.follow()
    for number in (2, 3, 4):
        publish(storage, tmp_path, number, seed=number)
    host.follow()
    assert {version.number for version in host.held([])} == {1, 4}


def test_a_rollback_opens_no_file_again(storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(storage, tmp_path, 1)
    host = PartitionHost(storage, ["small"], 0, 1, 30)
    host.follow()
    republish(storage, 1, 2)
    monkeypatch.setattr("ray_jobs.index.shard.Shard.open", lambda *_: pytest.fail("opened a shard again"))
    host.follow()
    assert rows(host, 2) == rows(host, 1)


def test_a_version_that_is_asked_for_is_opened(storage: LocalStorage, tmp_path: Path) -> None:
    publish(storage, tmp_path, 1)
    publish(storage, tmp_path, 2, seed=2)
    host = PartitionHost(storage, ["small"], 0, 1, 30)
    host.follow()
    assert rows(host, 1) is None
    wait_for(lambda: rows(host, 1) is not None)
    assert rows(host, 1) == sum(record.rows for record in read(storage, "small", 1).shards)


def test_a_broken_snapshot_leaves_the_old_one_open(storage: LocalStorage, tmp_path: Path) -> None:
    publish(storage, tmp_path, 1)
    host = PartitionHost(storage, ["small"], 0, 1, 30)
    host.follow()
    expected = rows(host, 1)
    publish(storage, tmp_path, 2, seed=2)
    key = read(storage, "small", 2).shards[0].files[layout.VECTORS_F16].key
    path = storage.local(key)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(CorruptError):
        host.follow()
    assert [version.number for version in host.held([])] == [1]
    assert rows(host, 1) == expected


def test_an_index_that_does_not_exist_is_named(storage: LocalStorage) -> None:
    with pytest.raises(NotFoundError, match="index=small"):
        PartitionHost(storage, ["small"], 0, 1, 30).follow()
