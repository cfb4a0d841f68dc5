"""A store in a bucket of a real server: creates that are conditional, large objects in parts, long listings."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from command_line import ROOT
from faulty_proxy import Proxy, faulty
from s3_server import BUCKET, Bucket, s3_server

from ray_jobs.errors import ConflictError, StorageError, UsageError
from ray_jobs.storage import ObjectStorage, open_storage, sha256_of
from ray_jobs.storage.download import parts_of
from ray_jobs.storage.large import part_size
from ray_jobs.storage.settings import StorageSettings

STORE = f"s3://{BUCKET}/store"
MIB = 1 << 20
SETTINGS = StorageSettings(timeout_s=10, retry_s=10, part_mb=5, parallel=3)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with s3_server() as found:
        for name, value in found.environment.items():
            monkeypatch.setenv(name, value)
        yield found


@pytest.fixture
def proxy(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with faulty(bucket.environment["AWS_ENDPOINT_URL"]) as found:
        monkeypatch.setenv("AWS_ENDPOINT_URL", found.url)
        yield found


def racing(writers: int, write: Callable[[int], bool]) -> list[bool]:
    """What each of so many writers, let go at once, returns."""
    barrier = threading.Barrier(writers)

    def begin(number: int) -> bool:
        barrier.wait()
        return write(number)

    with ThreadPoolExecutor(writers) as pool:
        return list(pool.map(begin, range(writers)))


def test_the_server_enforces_that_a_key_is_absent(bucket: Bucket) -> None:
    """What the tests of this project rest on, asked of the server by another client."""
    from botocore.exceptions import ClientError

    refusals: list[int] = []

    def put(number: int) -> bool:
        try:
            bucket.client.put_object(Bucket=BUCKET, Key="race", Body=str(number).encode(), IfNoneMatch="*")
        except ClientError as error:
            refusals.append(error.response["ResponseMetadata"]["HTTPStatusCode"])
            return False
        return True

    won = racing(12, put)
    assert sum(won) == 1
    assert refusals == [412] * 11
    assert bucket.client.get_object(Bucket=BUCKET, Key="race")["Body"].read() == str(won.index(True)).encode()


def test_of_racing_writers_of_one_key_one_wins_even_with_the_same_bytes(bucket: Bucket, tmp_path: Path) -> None:
    stores = [ObjectStorage(STORE, tmp_path, SETTINGS) for _ in range(8)]
    for key in ("a", "b", "c"):

        def write(number: int, key: str = key) -> bool:
            try:
                stores[number].create(key, b"the same")
            except ConflictError:
                return False
            return True

        assert sum(racing(8, write)) == 1


@pytest.mark.parametrize("size", [0, 5 * MIB, 5 * MIB + 1, 17 * MIB + 3])
def test_a_file_of_any_size_comes_back_as_it_was(bucket: Bucket, tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(random.Random(size).randbytes(size))
    storage = ObjectStorage(STORE, tmp_path / "cache", SETTINGS)
    storage.upload("k", path)
    tag = bucket.client.head_object(Bucket=BUCKET, Key="store/k")["ETag"].strip('"')
    assert tag.endswith(f"-{-(-size // (5 * MIB))}") is (size > 5 * MIB)  # the tag of an upload in parts counts them
    assert storage.fingerprint("k") == (size, sha256_of(path))
    assert storage.local("k").read_bytes() == path.read_bytes()
    with pytest.raises(ConflictError, match="store/k exists already"):
        storage.upload("k", path)


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_of_a_large_upload_that_fails_no_part_stays(bucket: Bucket, proxy: Proxy, tmp_path: Path, method: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(12 * MIB))
    storage = ObjectStorage(STORE, tmp_path / "cache", SETTINGS.model_copy(update={"retry_s": 0.5}))
    proxy.choose = lambda asked, way: "slow down" if asked == method and "uploadId" in way else None
    with pytest.raises(StorageError, match=r"cannot write s3://bucket/store/k: .*check address, credentials"):
        storage.upload("k", path)
    assert any("uploads" in way for _, way in proxy.requests)
    assert "Uploads" not in bucket.client.list_multipart_uploads(Bucket=BUCKET)
    assert not bucket.found()


LARGE = """
import resource, sys
from pathlib import Path
from ray_jobs.storage import open_storage

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

storage = open_storage("s3://bucket/store")
storage.create("small", b"x")
storage.local("small")
before = peak()
storage.upload("k", Path(sys.argv[1]))
uploaded = peak()
storage.local("k")
print(uploaded - before, peak() - before)
"""


@pytest.mark.slow
def test_the_memory_for_a_large_file_is_that_of_the_parts_on_their_way(bucket: Bucket, tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(320 * MIB)
    ended = subprocess.run(
        [sys.executable, "-c", LARGE, str(path)],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TANDEM_CACHE": str(tmp_path / "cache"),
            "TANDEM_STORAGE_PART_MB": "5",
            "TANDEM_STORAGE_PARALLEL": "3",
        },
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == 0, ended.stderr
    uploading, both = map(int, ended.stdout.split())
    assert uploading < 100 * MIB
    assert both < 150 * MIB


@pytest.mark.chaos
def test_a_listing_of_many_pages_is_whole_in_order_and_goes_on_where_it_is_cut(
    bucket: Bucket, proxy: Proxy, tmp_path: Path
) -> None:
    keys = [f"many/{number:04d}" for number in range(2_300)]
    for key in keys:
        bucket.put(f"store/{key}", b"")
    storage = ObjectStorage(STORE, tmp_path, SETTINGS)
    assert [item.key for item in storage.list("many")] == keys
    answered = 0

    def cut(method: str, path: str) -> str | None:
        nonlocal answered
        answered += "list-type" in path
        return "cut" if answered in (2, 4) else None

    proxy.choose = cut  # type: ignore[assignment]
    assert [item.key for item in storage.list("many")] == keys
    assert proxy.done["cut"] == 2


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 95])
def test_ranges_cover_an_object_without_gap_or_overlap(size: int) -> None:
    parts = parts_of(size, 10)
    assert [place for start, end in parts for place in range(start, end)] == list(range(size))
    assert all(end - start <= 10 for start, end in parts)


@pytest.mark.parametrize("size", [1, 16 * MIB, 200 << 30, 5 << 40])
def test_a_file_of_any_size_has_no_more_parts_than_a_service_takes(size: int) -> None:
    part = part_size(size, 16 * MIB)
    assert part >= 16 * MIB
    assert part % MIB == 0
    assert -(-size // part) <= 10_000


@pytest.mark.parametrize(
    ("name", "value"),
    [("TIMEOUT_S", "soon"), ("RETRY_S", "-1"), ("PART_MB", "4"), ("PARALLEL", "0"), ("CACHE_GB", "x")],
)
def test_a_setting_that_cannot_be_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"TANDEM_STORAGE_{name}", value)
    with pytest.raises(UsageError, match=rf"TANDEM_STORAGE_{name}='{value}': .*; change the variable or unset it"):
        open_storage("memory:///")
