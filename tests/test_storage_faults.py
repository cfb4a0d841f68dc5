"""What a store in a bucket makes of a network and a service that fail: a real server behind a proxy that breaks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_proxy import FAULTS, Fault, Proxy, faulty
from s3_server import BUCKET, Bucket, s3_server

from ray_jobs.errors import ConflictError, NotFoundError, StorageError
from ray_jobs.storage import ObjectStorage, sha256_of
from ray_jobs.storage.settings import StorageSettings

SETTINGS = StorageSettings(timeout_s=1, connect_timeout_s=1, retry_s=15, part_mb=5, parallel=3)
MIB = 1 << 20


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Bucket, Proxy]]:
    with s3_server() as bucket, faulty(bucket.environment["AWS_ENDPOINT_URL"]) as proxy:
        yield bucket, proxy


@pytest.fixture
def bucket(served: tuple[Bucket, Proxy]) -> Bucket:
    bucket, _ = served
    for key in bucket.found():
        bucket.client.delete_object(Bucket=BUCKET, Key=key)
    return bucket


@pytest.fixture
def proxy(served: tuple[Bucket, Proxy], bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    _, proxy = served
    proxy.harmless()
    proxy.done.clear()
    proxy.requests.clear()
    for name, value in {**bucket.environment, "AWS_ENDPOINT_URL": proxy.url}.items():
        monkeypatch.setenv(name, value)
    return proxy


@pytest.fixture
def storage(proxy: Proxy, tmp_path: Path) -> ObjectStorage:
    return ObjectStorage("s3://bucket/store", tmp_path / "cache", SETTINGS)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_write_that_meets_a_fault_is_done_once_and_is_its_writers(
    storage: ObjectStorage, proxy: Proxy, bucket: Bucket, fault: Fault
) -> None:
    proxy.once("PUT", "store/k", fault, fault)
    storage.create("k", b"mine")
    assert proxy.done[fault] >= 1
    assert storage.read("k") == b"mine"
    with pytest.raises(ConflictError, match="store/k exists already"):
        storage.create("k", b"mine")
    assert bucket.found("store/") == {"store/k"}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_race_that_is_lost_stays_lost_whatever_happens_to_the_request(
    storage: ObjectStorage, proxy: Proxy, bucket: Bucket, fault: Fault
) -> None:
    bucket.put("store/k", b"mine")  # by somebody who leaves no mark, with the same bytes
    proxy.once("PUT", "store/k", fault, fault)
    with pytest.raises(ConflictError, match="store/k exists already"):
        storage.create("k", b"mine")


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_read_through_faults_is_whole(
    storage: ObjectStorage, proxy: Proxy, bucket: Bucket, fault: Fault, tmp_path: Path
) -> None:
    data = random.Random(1).randbytes(12 * MIB)
    bucket.put("store/large", data)
    bucket.put("store/small", b"small")
    proxy.once("GET", "store/large", *[fault] * 3)
    assert storage.local("large").read_bytes() == data
    proxy.once("GET", "store/small", *[fault] * 2)
    assert storage.read("small") == b"small"
    proxy.once("GET", "bucket", *[fault] * 2)
    assert [item.key for item in storage.list("")] == ["large", "small"]
    assert not [path for path in tmp_path.rglob(".*") if path.is_file() and path.name != ".looked"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_large_file_is_uploaded_through_faults_and_leaves_no_part(
    storage: ObjectStorage, proxy: Proxy, bucket: Bucket, fault: Fault, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(random.Random(2).randbytes(12 * MIB))
    for method in ("POST", "PUT"):
        proxy.once(method, "large", *[fault] * 2)
        storage.upload("large", path)
        assert storage.fingerprint("large") == (12 * MIB, sha256_of(path))
        storage.delete("large")
    assert "Uploads" not in bucket.client.list_multipart_uploads(Bucket=BUCKET)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_deleted_through_faults_is_gone(
    storage: ObjectStorage, proxy: Proxy, bucket: Bucket, fault: Fault
) -> None:
    bucket.put("store/k", b"x")
    proxy.at_random(3, 0.5, (fault,))
    storage.delete("k")
    proxy.harmless()
    assert not storage.exists("k")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.chaos) for seed in range(1, 4))])
def test_two_writers_under_random_faults_never_both_win_nor_lose_what_was_written(
    storage: ObjectStorage, proxy: Proxy, tmp_path: Path, seed: int
) -> None:
    other = ObjectStorage("s3://bucket/store", tmp_path / "other", SETTINGS)
    proxy.at_random(seed, 0.25)
    chance = random.Random(seed)
    claimed: dict[str, bytes] = {}
    for number in range(60):
        writer, name = chance.choice([(storage, b"one"), (other, b"other")])
        key, data = f"k{chance.randrange(25)}", b"%s %d" % (name, number)
        try:
            writer.create(key, data)
        except ConflictError:
            assert key in claimed
        else:
            assert key not in claimed
            claimed[key] = data
    proxy.harmless()
    assert {item.key: storage.read(item.key) for item in storage.list("")} == claimed
    assert sum(proxy.done.values()) > 10


@pytest.mark.parametrize("fault", ["slow down", "reset", "sleep"])
def test_a_service_that_stays_away_is_told_with_the_key_and_what_to_do(
    proxy: Proxy, bucket: Bucket, tmp_path: Path, fault: Fault
) -> None:
    bucket.put("store/k", b"x")
    storage = ObjectStorage("s3://bucket/store", tmp_path, SETTINGS.model_copy(update={"retry_s": 0.3}))
    proxy.choose = lambda method, path: fault
    told = r"s3://bucket/store/k: .*; check address, credentials and network"
    with pytest.raises(StorageError, match=f"cannot read {told}"):
        storage.read("k")
    with pytest.raises(StorageError, match=f"cannot read {told}"):
        storage.local("k")
    with pytest.raises(StorageError, match=f"cannot write {told}"):
        storage.create("k", b"x")
    with pytest.raises(StorageError, match=f"cannot delete {told}"):
        storage.delete("k")
    with pytest.raises(StorageError, match="cannot list s3://bucket/store/"):
        list(storage.list(""))
    assert len(proxy.requests) < 100


def test_what_the_service_refuses_is_not_tried_again(proxy: Proxy, tmp_path: Path) -> None:
    storage = ObjectStorage("s3://nobody-has-this/store", tmp_path, SETTINGS)
    with pytest.raises(NotFoundError):
        storage.read("k")
    assert len(proxy.requests) == 1
