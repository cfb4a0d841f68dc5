"""A machine's copies of objects: whole, shared, bounded, and never taken away from who uses them."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from command_line import ROOT
from faulty_proxy import Proxy, faulty
from hypothesis import given, settings
from hypothesis import strategies as st
from s3_server import Bucket, s3_server

from ray_jobs.errors import CorruptError
from ray_jobs.storage import ObjectStorage, download, eviction, sha256_of
from ray_jobs.storage.eviction import GRACE_SECONDS, shrink
from ray_jobs.storage.settings import StorageSettings

KB = 1000


def aged(path: Path, seconds: float) -> None:
    """Let a copy have been asked for so long ago."""
    os.utime(path, ns=(int((time.time() - seconds) * 1e9), path.stat().st_mtime_ns))


def stored(storage: ObjectStorage, key: str, data: bytes) -> Path:
    """The copy by hash of a new object."""
    storage.create(key, data)
    return storage.local(key, hash_of(data))


def hash_of(data: bytes) -> str:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return sha256_of(Path(file.name))


def test_equal_bytes_are_kept_once_whatever_their_key_and_store(tmp_path: Path) -> None:
    first, other = (ObjectStorage(uri, tmp_path) for uri in ("memory:///", "memory:///"))
    copy = stored(first, "a/x.arrow", b"owl")
    assert copy == stored(first, "b/y.arrow", b"owl") == stored(other, "c.arrow", b"owl")
    assert copy.suffix == ".arrow"


def test_a_copy_that_was_damaged_is_fetched_anew_and_a_damaged_object_refused(tmp_path: Path) -> None:
    storage = ObjectStorage("memory:///", tmp_path)
    copy = stored(storage, "k", b"content")
    copy.write_bytes(b"Content")
    assert storage.local("k", hash_of(b"content")).read_bytes() == b"content"
    with pytest.raises(CorruptError, match="k: content differs from its sha256"):
        storage.local("k", hash_of(b"other"))
    assert [path.read_bytes() for path in (tmp_path / "sha256").rglob("*") if path.is_file()] == [b"content"]


def test_what_the_store_holds_is_hashed_and_not_what_is_cached(tmp_path: Path) -> None:
    storage = ObjectStorage("memory:///", tmp_path)
    stored(storage, "k", b"content")
    storage.delete("k")
    storage.create("k", b"changed")
    assert storage.fingerprint("k") == (7, hash_of(b"changed"))


copies = st.lists(
    st.tuples(st.integers(0, 100), st.integers(-2, 30), st.sampled_from(["free", "free", "open", "mapped"])),
    max_size=12,
)


@settings(max_examples=200)
@given(copies=copies, bound=st.integers(0, 600))
def test_the_longest_unused_go_first_just_enough_and_none_that_is_in_use(
    copies: list[tuple[int, int, str]], bound: int
) -> None:
    """`copies` are sizes, how many minutes ago beyond the grace each was asked for, and whether it is in use."""
    with ExitStack() as held, tempfile.TemporaryDirectory() as name:
        paths = []
        for number, (size, minutes, use) in enumerate(copies):
            path = Path(name) / f"{number % 3}" / str(number)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"x" * size)
            if use != "free":
                file = held.enter_context(path.open("rb"))
                if use == "mapped" and size:
                    held.enter_context(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
                    file.close()
            aged(path, GRACE_SECONDS + 60 * minutes + number / 100)
            paths.append(path)
        total = sum(size for size, _, _ in copies)
        removed = shrink(Path(name), bound)
        gone = {number for number, path in enumerate(paths) if not path.exists()}
        may_go = {n for n, (_, minutes, use) in enumerate(copies) if minutes >= 0 and use == "free"}
        age = {number: (copies[number][1], number) for number in range(len(copies))}
    assert gone <= may_go
    assert removed == sum(copies[number][0] for number in gone)
    left = may_go - gone
    assert total - removed <= bound or not left
    assert all(age[one] >= age[another] for one in gone for another in left)
    if gone:
        youngest = min(gone, key=lambda number: age[number])
        assert total - removed + copies[youngest][0] > bound


MAPS = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
print("mapped", flush=True)
sys.stdin.readline()
print(bytes(mapped[:3]).decode(), flush=True)
"""


def test_what_another_process_has_mapped_stays_and_goes_when_it_is_done(tmp_path: Path) -> None:
    path = tmp_path / "copy"
    path.write_bytes(b"owl")
    with subprocess.Popen(
        [sys.executable, "-c", MAPS, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "mapped\n"
        aged(path, 10 * GRACE_SECONDS)
        assert shrink(tmp_path, 0) == 0
        assert process.communicate("\n")[0] == "owl\n"
    assert shrink(tmp_path, 0) == 3
    assert not path.exists()


def test_where_a_file_system_has_no_leases_a_copy_stays_for_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eviction, "_lease", lambda descriptor: None)
    for name, hours in (("new", 23), ("old", 25)):
        (tmp_path / name).write_bytes(b"x")
        aged(tmp_path / name, hours * 3600)
    assert shrink(tmp_path, 0) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_the_cache_of_a_store_keeps_to_its_bound_and_what_went_is_fetched_again(tmp_path: Path) -> None:
    storage = ObjectStorage("memory:///", tmp_path, StorageSettings(cache_gb=10 * KB / 1e9))
    held = stored(storage, "held", b"h" * 4 * KB)
    with held.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        aged(held, 9 * GRACE_SECONDS)
        for number in range(12):
            aged(stored(storage, f"k{number}", bytes([number]) * 4 * KB), 2 * GRACE_SECONDS)
            storage.create(f"work/{number}", bytes([100 + number]) * 4 * KB)
            aged(storage.local(f"work/{number}"), 2 * GRACE_SECONDS)
            left = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]
            assert held in left
            assert sum(path.stat().st_size for path in left) <= 16 * KB
        assert mapped[:4] == b"hhhh"
    assert storage.local("k0", hash_of(bytes(4 * KB))).read_bytes() == bytes(4 * KB)
    assert storage.local("work/0").read_bytes() == bytes([100]) * 4 * KB


def test_a_full_disk_makes_room_of_what_nobody_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = ObjectStorage("memory:///", tmp_path)
    unused, used = stored(storage, "unused", b"unused"), stored(storage, "used", b"used")
    aged(unused, 2 * GRACE_SECONDS)
    real, full = download.fetch, [OSError(errno.ENOSPC, "No space left on device")]

    def fetch(*arguments: object) -> None:
        if full:
            raise full.pop()
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(download, "fetch", fetch)
    assert stored(storage, "new", b"new").read_bytes() == b"new"
    assert not unused.exists()
    assert used.exists()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Bucket, Proxy]]:
    with s3_server() as bucket, faulty(bucket.environment["AWS_ENDPOINT_URL"]) as found:
        for name, value in {**bucket.environment, "AWS_ENDPOINT_URL": found.url}.items():
            monkeypatch.setenv(name, value)
        yield bucket, found


RACES = """
import sys
from ray_jobs.storage import open_storage, sha256_of
storage = open_storage("s3://bucket/store")
print("ready", flush=True)
sys.stdin.readline()
for number, sha256 in enumerate(sys.argv[1:]):
    assert sha256_of(storage.local(f"k{number}", sha256)) == sha256
    assert sha256_of(storage.local(f"k{number}")) == sha256
print("done", flush=True)
"""


@pytest.mark.slow
def test_processes_that_want_the_same_fetch_it_once_and_each_has_it_whole(
    proxy: tuple[Bucket, Proxy], tmp_path: Path
) -> None:
    bucket, between = proxy
    contents = [os.urandom(200 * KB) for _ in range(6)]
    for number, data in enumerate(contents):
        bucket.put(f"store/k{number}", data)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RACES, *map(hash_of, contents)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "TANDEM_CACHE": str(tmp_path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate()[0] for process in processes] == ["done\n"] * 3
    fetched = [path for method, path in between.requests if method == "GET"]
    assert len(fetched) == 2 * len(contents)  # by hash, and by key
