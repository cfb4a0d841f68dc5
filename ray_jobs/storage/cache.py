"""A machine's copies of objects: by the hash of their bytes, or by their key where the hash is not known.

    CACHE/sha256/AB/HASH.SUFFIX    what is recorded with its hash, shared by all stores
    CACHE/STORE/KEY                the rest: keys are unique, and written once

Guaranteed: a copy appears whole; one that has another hash than is asked for is fetched again; the processes of a
machine fetch it once where its file system has locks. When the copies outgrow their bound, those go that were asked for
longest ago and that no process has open or mapped; see `eviction.py`. Not guaranteed: that a copy stays which is not
opened within ten minutes; that the bound holds while more is in use, or to the byte.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from ray_jobs.storage import eviction, verified
from ray_jobs.storage.objects import sha256_of

_STRIPES = 3  # hexadecimal digits: so many locks that two files rarely share one
_LOOKED_AFTER_SHARE = 50  # the bound is looked after each time that this part of it has come
_LOOKED_AFTER_SECONDS = 60.0  # or once in so long, by the first process that fetches something

Fetch = Callable[[Path], None]


class ObjectCache:
    """Copies of the objects of one store, in a folder that all stores share."""

    def __init__(self, folder: Path, store: str, bound: int | None) -> None:
        self.folder = folder
        self._keyed = folder / hashlib.sha256(store.encode()).hexdigest()[:16]
        self._bound = bound
        self._come = 0  # bytes since the bound was looked after

    @property
    def folders(self) -> Path:
        """Where copies of whole folders are; they have rules of their own."""
        return self._keyed.with_name(f"{self._keyed.name}{eviction.FOLDERS}")

    def by_key(self, key: str) -> Path:
        """Where the copy of what has `key` is, if it is there."""
        return self._keyed / key

    def by_hash(self, sha256: str, key: str) -> Path:
        """Where the copy of what has this hash is, if it is there; it ends as `key` does."""
        return self.folder / "sha256" / sha256[:2] / (sha256 + PurePosixPath(key).suffix)

    def copy(self, path: Path, fetch: Fetch, sha256: str | None = None) -> bool:
        """Have a copy at `path`, of this hash if one is given; False where what `fetch` brings has another.

        Raises OSError for a cache that cannot be written, and what `fetch` raises.
        """
        if _is_there(path, sha256):
            return True
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._alone(path):
            if _is_there(path, sha256):  # another one was first
                return True
            self._bring(path, fetch)
            whole = sha256 is None or verified.holds(path, sha256)
            if not whole:
                path.unlink()
                return False
        self._look_after_bound(path.stat().st_size)
        return True

    def adopt(self, path: Path, key: str) -> tuple[int, str]:
        """Make `path`, a file in `folder`, the copy of what has its hash; returns its size and its hash."""
        size, digest = path.stat().st_size, sha256_of(path)
        target = self.by_hash(digest, key)
        if not _is_there(target, digest):
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
            verified.remember(target, digest)
            os.utime(
                target, ns=(0, target.stat().st_mtime_ns)
            )  # nobody has asked for it yet: it may be the first to go
            self._look_after_bound(size)
        return size, digest

    @contextmanager
    def arriving(self) -> Iterator[Path]:
        """A name in `folder` for a file that is gone in the end, unless it was renamed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f".{uuid.uuid4().hex}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def drop(self, key: str) -> None:
        """Remove the copy of what has `key`."""
        with suppress(OSError):
            self.by_key(key).unlink()

    def forget(self, prefix: str) -> None:
        """Remove the copies by key below the folder `prefix`."""
        shutil.rmtree(self._keyed / prefix, ignore_errors=True)

    def _bring(self, path: Path, fetch: Fetch) -> None:
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            try:
                fetch(temporary)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                temporary.unlink(missing_ok=True)
                eviction.shrink(self.folder, 0)
                fetch(temporary)
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _look_after_bound(self, come: int) -> None:
        self._come += come
        with suppress(OSError):  # of a folder that another process takes away
            bound = self._bound if self._bound is not None else shutil.disk_usage(self.folder).total // 2
            looked = self.folder / ".looked"
            recently = looked.exists() and time.time() - looked.stat().st_mtime < _LOOKED_AFTER_SECONDS
            if self._come > bound // _LOOKED_AFTER_SHARE or not recently:
                self._come = 0
                looked.touch()
                eviction.shrink(self.folder, bound)

    @contextmanager
    def _alone(self, path: Path) -> Iterator[None]:
        """Let one process at a time fetch `path`; all of them where the file system has no locks."""
        locks = self.folder / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        with (locks / hashlib.sha256(str(path).encode()).hexdigest()[:_STRIPES]).open("w") as lock:
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _is_there(path: Path, sha256: str | None) -> bool:
    return _asked_for(path) and (sha256 is None or verified.holds(path, sha256))


def _asked_for(path: Path) -> bool:
    """Note that a copy is asked for; False where there is none.

    While it is open here it cannot go, and when it is closed whoever wants to remove it sees the new time.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        with suppress(OSError):  # it may be one that is only read
            os.utime(descriptor, ns=(time.time_ns(), os.fstat(descriptor).st_mtime_ns))
        return os.fstat(descriptor).st_nlink > 0
    finally:
        os.close(descriptor)
