"""A key is written once, whole or not at all; refusals of the disk are one line."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ray_jobs.errors import ConflictError, CorruptError, NotFoundError, StorageError, UsageError
from ray_jobs.storage import LocalStorage, ObjectStorage, Storage, open_storage, sha256_of


@pytest.fixture(params=["local", "object"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return LocalStorage(tmp_path / "store")
    return ObjectStorage("memory:///", tmp_path / "cache")


def test_the_second_writer_of_a_key_is_refused_and_the_first_stays(storage: Storage, tmp_path: Path) -> None:
    storage.create("a/b", b"first")
    path = tmp_path / "file"
    path.write_bytes(b"second")
    with pytest.raises(ConflictError, match="a/b exists already"):
        storage.create("a/b", b"second")
    with pytest.raises(ConflictError, match="a/b exists already"):
        storage.upload("a/b", path)
    assert storage.read("a/b") == b"first"


def test_of_many_racing_writers_exactly_one_wins(storage: Storage) -> None:
    outcomes: list[bytes | None] = []
    barrier = threading.Barrier(8)

    def write(data: bytes) -> None:
        barrier.wait()
        try:
            storage.create("race", data)
            outcomes.append(data)
        except ConflictError:
            outcomes.append(None)

    threads = [threading.Thread(target=write, args=(str(n).encode() * 1000,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [outcome for outcome in outcomes if outcome is not None]
    assert len(outcomes) == 8
    assert storage.read("race") == winner


def test_a_folder_that_is_taken_away_when_it_is_empty_is_in_no_writers_way(storage: Storage) -> None:
    def write_and_delete(writer: int) -> int:
        for number in range(150):
            storage.create(f"a/b/{writer}-{number}", b"x")
            storage.delete(f"a/b/{writer}-{number}")
        return writer

    with ThreadPoolExecutor(4) as writers:
        assert list(writers.map(write_and_delete, range(4))) == [0, 1, 2, 3]
    assert list(storage.list("a")) == []


def test_listing_sees_what_was_written_and_what_was_deleted(storage: Storage) -> None:
    for key in ("x/1", "x/y/2", "z/3"):
        storage.create(key, b"data")
    assert sorted((item.key, item.size) for item in storage.list("x")) == [("x/1", 4), ("x/y/2", 4)]
    storage.delete("x/1")
    storage.delete("x/1")
    assert [item.key for item in storage.list("x")] == ["x/y/2"]
    assert list(storage.list("nothing")) == []


def test_a_local_copy_has_the_bytes_of_the_key(storage: Storage, tmp_path: Path) -> None:
    with storage.scratch() as folder:
        path = folder / "made"
        path.write_bytes(b"content")
        storage.upload("k", path)
    assert storage.local("k").read_bytes() == b"content"
    assert not folder.exists()


def test_copies_that_are_forgotten_go_and_what_they_are_copies_of_stays(storage: Storage, tmp_path: Path) -> None:
    for key in ("a/1/x", "a/1/y", "a/2/z"):
        storage.create(key, b"owl")
    first, _, other = (storage.local(key) for key in ("a/1/x", "a/1/y", "a/2/z"))
    storage.forget("a/1")
    storage.forget("nowhere")
    assert other.is_file()
    assert first.is_file() is isinstance(storage, LocalStorage)
    assert storage.local("a/1/x").read_bytes() == b"owl"
    assert [item.key for item in storage.list("a")] == ["a/1/x", "a/1/y", "a/2/z"]


def test_what_is_written_in_place_of_what_was_deleted_has_its_own_local_copy(storage: Storage) -> None:
    for content in (b"one", b"two"):
        storage.create("a/b", content)
        assert storage.local("a/b").read_bytes() == content
        storage.delete("a/b")


KILLED = """
import os, signal, sys
from ray_jobs.storage import open_storage
with open_storage(sys.argv[1]).scratch() as folder:
    (folder / "shard").write_bytes(b"much")
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def aged(folder: Path, seconds: float) -> None:
    then = time.time() - seconds
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (then, then))


@pytest.mark.parametrize("uri", ["store", "memory:///"])
def test_what_a_killed_process_has_left_goes_and_what_another_works_in_stays(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    store = open_storage(uri)
    with store.scratch() as mine:
        aged(mine, 8 * 24 * 3600)
        killed = subprocess.run([sys.executable, "-c", KILLED, uri], stdout=subprocess.PIPE, text=True, check=False)
        left = Path(killed.stdout.strip())
        assert (left / "shard").is_file()
        assert left.parent == mine.parent
        with store.scratch():
            assert left.is_dir()  # so new that its lock may not be held yet
        aged(left, 120)
        with store.scratch():
            assert not left.exists()
            assert mine.is_dir()
    assert not mine.exists()


def test_what_another_machine_has_left_goes_when_nothing_has_changed_for_a_week(tmp_path: Path) -> None:
    store = LocalStorage(tmp_path)
    old, used = (tmp_path / ".scratch" / f"tandem-scratch-0123456789ab-{name}" for name in ("old", "used"))
    for folder in (old, used):
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "shard").write_bytes(b"much")
        aged(folder, 8 * 24 * 3600)
    os.utime(used / "model" / "shard")
    with store.scratch():
        assert not old.exists()
        assert used.is_dir()


def test_a_missing_key_is_named(storage: Storage) -> None:
    assert not storage.exists("none")
    with pytest.raises(NotFoundError, match="none does not exist"):
        storage.read("none")
    with pytest.raises(NotFoundError, match="none does not exist"):
        storage.local("none")


def test_a_cached_copy_with_other_bytes_than_recorded_is_refused(tmp_path: Path) -> None:
    storage = ObjectStorage("memory:///", tmp_path / "cache")
    storage.create("k", b"content")
    with pytest.raises(CorruptError, match="differs from its sha256"):
        storage.local("k", "0" * 64)


def test_a_cached_copy_of_what_had_the_key_before_is_fetched_again(tmp_path: Path) -> None:
    storage = ObjectStorage("memory:///", tmp_path / "cache")
    storage.create("k", b"content")
    copy = storage.local("k")
    digest = sha256_of(copy)
    copy.write_bytes(b"what another machine has deleted since")
    assert storage.local("k", digest).read_bytes() == b"content"


def test_a_file_is_hashed_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_CACHE", str(tmp_path / "cache"))
    hashed, plain = [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *given: hashed.append(given) or plain(*given))
    storage = LocalStorage(tmp_path / "store")
    storage.create("k", b"content")
    digest = sha256_of(storage.local("k"))
    for _ in range(3):
        storage.local("k", digest)
    assert len(hashed) == 1
    (tmp_path / "store" / "k").write_bytes(b"Content")
    with pytest.raises(CorruptError, match="differs from its sha256"):
        storage.local("k", digest)


def test_an_upload_across_file_systems_is_whole_and_leaves_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = LocalStorage(tmp_path / "store")
    real = __import__("os").link

    def link(source: Path, target: Path) -> None:
        if Path(source).name == "outside":
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr("os.link", link)
    path = tmp_path / "outside"
    path.write_bytes(b"content")
    storage.upload("a/k", path)
    assert [entry.name for entry in (tmp_path / "store" / "a").iterdir()] == ["k"]
    assert storage.read("a/k") == b"content"


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "no space left"), (errno.EACCES, "permission denied"), (errno.EROFS, "read-only")],
)
def test_a_disk_that_refuses_is_explained_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    storage = LocalStorage(tmp_path / "store")

    def refuse(descriptor: int) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(StorageError, match=words):
        storage.create("a/k", b"content")
    assert list(storage.list("a")) == []
    assert list((tmp_path / "store" / "a").iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory", "/elsewhere/weights"),
        PermissionError(errno.EACCES, "Permission denied", "/elsewhere/weights"),
        OSError(errno.ENOSPC, "No space left on device", "/elsewhere/cache"),
        OSError("Error no file named model.safetensors"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        TimeoutError("too late"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_fails_over_scratch_files_is_not_blamed_on_the_store(storage: Storage, error: OSError) -> None:
    with pytest.raises(type(error)) as raised, storage.scratch() as folder:
        raise error
    assert raised.value is error
    assert not folder.exists()


def test_a_scratch_folder_on_a_full_disk_is_explained(storage: Storage) -> None:
    with pytest.raises(StorageError, match=r"cannot write .*: no space left"), storage.scratch() as folder:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / "rows"))
    with pytest.raises(StorageError, match=r"cannot write .*: no space left"), storage.scratch():
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_store_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(StorageError, match="choose another --store"):
        open_storage(str(tmp_path / "store")).create("a", b"")
    with (
        pytest.raises(StorageError, match=r"scratch: .*choose another --store"),
        open_storage(str(tmp_path / "store")).scratch(),
    ):
        pass


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown scheme 'ftp'"):
        open_storage("ftp://host/path")


def test_a_key_cannot_leave_the_store(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"without '\.\.'"):
        LocalStorage(tmp_path).read("../secret")
