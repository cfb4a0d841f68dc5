"""The life of an index whose sources and store lie in a bucket: at every step what it is on a local disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from bucket_runs import Place, corpus
from ingest_runs import rows_of
from s3_server import Bucket, s3_server

from ray_jobs.index import manifest
from ray_jobs.index.verify import verify
from ray_jobs.ingest import compact_job
from ray_jobs.ingest.collect import collect
from ray_jobs.ingest.compact_settings import CompactSettings
from ray_jobs.ingest.rollback import rollback

pytest_plugins = ["in_process"]
pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Place, Place]]:
    """The same on the disk and in a bucket."""
    monkeypatch.setenv("TANDEM_CACHE", str(tmp_path / "cache"))
    with s3_server() as bucket:
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        for name in ("disk", "bucket"):
            (tmp_path / name).mkdir()
        yield Place(tmp_path / "disk"), Place(tmp_path / "bucket", bucket)


@pytest.fixture
def place(places: tuple[Place, Place]) -> Place:
    """An index of ten documents in a bucket."""
    _, place = places
    place.lay_out(corpus(*range(10)))
    place.ingest()
    return place


def texts(place: Place) -> dict[str, str]:
    """The documents whose text the live snapshot keeps."""
    tables = [pq.read_table(place.storage.local(record.key)) for record in place.live.documents]
    return {row["doc_id"]: row["text"] for table in tables for row in table.to_pylist()}


def assert_alike(places: tuple[Place, Place], number: int) -> None:
    disk, bucket = places
    assert bucket.live.number == disk.live.number == number
    assert bucket.live.counts == disk.live.counts
    assert bucket.live.counts.check() == []
    assert texts(bucket) == texts(disk)
    assert rows_of(bucket.storage) == rows_of(disk.storage)
    assert bucket.answers() == disk.answers()
    assert verify(bucket.storage, bucket.live).problems == ()


def test_an_index_in_a_bucket_lives_as_one_on_a_disk(places: tuple[Place, Place]) -> None:
    for place in places:
        place.lay_out(corpus(*range(40)))
        place.ingest()
    assert_alike(places, 1)
    for place in places:
        assert place.ingest().outcome == "unchanged"
        place.lay_out({**corpus(*range(5, 40)), **corpus(*range(20, 25), word="fig"), **corpus(*range(40, 45))})
        summary = place.ingest(prune=True)
        assert (summary.outcome, summary.counts.kept) == ("published", 30)
    assert_alike(places, 2)
    for place in places:
        place.delete("d07", "d21")
    assert_alike(places, 3)
    for place in places:
        compact_job.run(place.storage, "test", CompactSettings.model_validate({"max_dead": 0}))
        assert place.live.dead_rows == 0
    assert_alike(places, 4)
    for place in places:
        rollback(place.storage, "test", 2)
    assert_alike(places, 5)
    for place in places:
        assert collect(place.storage, "test", keep=1, grace_s=-5).snapshots == (1, 2, 3, 4)
        assert manifest.numbers(place.storage, "test") == [5]
    assert_alike(places, 5)
    assert len(list(places[0].storage.list("indexes"))) == len(list(places[1].storage.list("indexes")))


def test_an_object_that_is_damaged_in_the_bucket_is_found_though_a_good_copy_is_cached(place: Place) -> None:
    assert place.answers()
    damaged, gone = place.live.shards[0].files["rows.arrow"], place.live.documents[0]
    bucket = place.bucket
    assert isinstance(bucket, Bucket)
    data = bytearray(place.storage.read(damaged.key))
    data[-1] ^= 1
    bucket.put(f"store/{damaged.key}", bytes(data))
    place.storage.delete(gone.key)
    problems = verify(place.storage, place.live).problems
    assert any(damaged.key in problem and "sha256" in problem for problem in problems)
    assert any(gone.key in problem and "does not exist" in problem for problem in problems)
    assert len(problems) == 2


def test_an_object_that_is_overwritten_within_a_second_by_as_many_bytes_is_read_again(place: Place) -> None:
    place.lay_out(corpus(*range(10), word="peach"))
    assert place.ingest().outcome == "published"
    assert place.ingest().outcome == "unchanged"
