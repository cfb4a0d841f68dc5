"""An ingest into a bucket through a network and a service that fail: it ends well, or says so and the next goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bucket_runs import Place, corpus
from faulty_proxy import Fault, Proxy, faulty
from ingest_runs import rows_of
from s3_server import s3_server

from ray_jobs.errors import StorageError
from ray_jobs.index import layout, manifest
from ray_jobs.index.verify import verify

pytest_plugins = ["in_process"]
pytestmark = [pytest.mark.usefixtures("in_process"), pytest.mark.slow]

OLD, NEW = corpus(*range(20)), corpus(*range(10, 40), word="fig")


SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.chaos) for seed in range(1, 3))]


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with s3_server() as bucket, faulty(bucket.environment["AWS_ENDPOINT_URL"]) as found:
        found.bucket = bucket  # type: ignore[attr-defined]
        yield found


@pytest.fixture
def place(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A first snapshot in a bucket behind the proxy, and the corpus of the second one."""
    monkeypatch.setenv("TANDEM_CACHE", str(tmp_path / "cache"))
    bucket = proxy.bucket  # type: ignore[attr-defined]
    settings = {
        "TANDEM_STORAGE_TIMEOUT_S": "1",
        "TANDEM_STORAGE_CONNECT_TIMEOUT_S": "1",
        "TANDEM_STORAGE_RETRY_S": "20",
    }
    for name, value in {**bucket.environment, **settings, "AWS_ENDPOINT_URL": proxy.url}.items():
        monkeypatch.setenv(name, value)
    made = Place(tmp_path, bucket)
    made.lay_out(OLD)
    made.ingest()
    made.lay_out(NEW)
    return made


@pytest.fixture
def undisturbed(tmp_path: Path) -> list[dict[str, object]]:
    """The rows of the second snapshot, made on a disk."""
    (tmp_path / "disk").mkdir()
    disk = Place(tmp_path / "disk")
    for files in (OLD, NEW):
        disk.lay_out(files)
        disk.ingest()
    return rows_of(disk.storage)


def assert_whole(place: Place, rows: list[dict[str, object]]) -> None:
    assert manifest.numbers(place.storage, "test") == [1, 2]
    assert rows_of(place.storage) == rows
    assert place.live.counts.check() == []
    assert verify(place.storage, place.live).problems == ()


@pytest.mark.parametrize("seed", SEEDS)
def test_an_ingest_under_random_faults_ends_with_what_it_ends_with_without(
    place: Place, proxy: Proxy, undisturbed: list[dict[str, object]], seed: int
) -> None:
    proxy.at_random(seed, 0.15)
    assert place.ingest().outcome == "published"
    assert sum(proxy.done.values()) > 3
    proxy.harmless()
    assert_whole(place, undisturbed)


@pytest.mark.parametrize("fault", ["reset after", "error after", "sleep after"])
def test_a_commit_whose_answer_is_lost_is_a_commit(
    place: Place, proxy: Proxy, undisturbed: list[dict[str, object]], fault: Fault
) -> None:
    proxy.once("PUT", layout.manifest("test", 2), fault, fault)
    assert place.ingest().outcome == "published"
    assert proxy.done[fault] >= 1
    assert_whole(place, undisturbed)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_ingest_that_gives_up_says_so_leaves_the_old_snapshot_and_the_next_goes_on(
    place: Place, proxy: Proxy, undisturbed: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setenv("TANDEM_STORAGE_RETRY_S", "0")
    monkeypatch.setenv("TANDEM_STORAGE_TIMEOUT_S", "30")
    before = rows_of(place.storage)
    told: list[str] = []
    for attempt in range(60):
        proxy.at_random(100 * seed + attempt, 0.04, ("slow down", "error", "reset", "reset within", "cut"))
        try:
            place.ingest()
            break
        except StorageError as error:
            told.append(str(error))
        finally:
            proxy.harmless()
        if manifest.numbers(place.storage, "test") == [1]:
            assert rows_of(place.storage) == before
        place.forget_the_lost()
    else:
        pytest.fail("no run got through")
    assert told
    assert all("s3://bucket/" in error and "check address, credentials and network" in error for error in told)
    place.ingest()
    assert_whole(place, undisturbed)


def test_of_a_store_that_goes_away_in_the_middle_the_finished_groups_are_kept(
    place: Place, proxy: Proxy, undisturbed: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_STORAGE_RETRY_S", "0.5")
    proxy.choose = lambda method, path: "slow down" if "/shards/" in path else None
    with pytest.raises(StorageError, match=r"cannot write s3://bucket/store/indexes/test/shards/.*check address"):
        place.ingest()
    proxy.harmless()
    assert manifest.numbers(place.storage, "test") == [1]
    summary = place.ingest()
    assert summary.found["groups embedded"] > 0
    assert_whole(place, undisturbed)
