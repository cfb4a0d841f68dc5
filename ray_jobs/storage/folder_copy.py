"""A folder of an object store as a local copy: of what is there now, complete or absent.

    CACHE/PREFIX/STATE/NAME/...    the files; STATE is a hash of what was listed, NAME the last part of PREFIX

Guaranteed: a copy is one state of the folder, not a mixture of two; the processes of a machine fetch it once where its
file system has locks. A copy of another state goes a day after it was last asked for. Not guaranteed: that whoever
reads one for longer than that, file by file, finds all of it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote

from ray_jobs.errors import NotFoundError, StorageError
from ray_jobs.storage.objects import ObjectInfo

if TYPE_CHECKING:
    from ray_jobs.storage.remote import ObjectStorage

_KEPT_SECONDS = 24 * 3600.0
_ATTEMPTS = 3  # while somebody else writes


def newest(source: ObjectStorage, prefix: str, cache: Path) -> Path:
    """The local copy of what is below `prefix` now.

    Raises NotFoundError where nothing is, StorageError where it changes while it is fetched, OSError for a cache that
    cannot be written.
    """
    copies = cache / quote(prefix, safe="")
    for _ in range(_ATTEMPTS):
        objects = _listed(source, prefix)
        if not objects:
            raise NotFoundError(f"{source.uri}/{prefix} does not exist; expected a folder of the store")
        state = copies / _state(objects)
        if state.is_dir() or _fetch(source, prefix, objects, state):
            with suppress(OSError):  # the cache may be one that is only read
                os.utime(state)
            return state / PurePosixPath(prefix).name
    raise StorageError(f"{source.uri}/{prefix} changes while it is read; try again when it is written")


def _listed(source: ObjectStorage, prefix: str) -> list[ObjectInfo]:
    found = sorted(source.list(prefix), key=lambda item: item.key)
    # Some tools write an empty object for a folder.
    folders = {str(folder) for item in found for folder in PurePosixPath(item.key).parents} | {prefix}
    return [item for item in found if item.key not in folders]


def _state(objects: Sequence[ObjectInfo]) -> str:
    lines = "".join(f"{item.key}\0{item.size}\0{item.version}\n" for item in objects)
    return hashlib.sha256(lines.encode()).hexdigest()[:32]


def _fetch(source: ObjectStorage, prefix: str, objects: Sequence[ObjectInfo], state: Path) -> bool:
    """Fetch the objects; False where they have changed meanwhile."""
    state.parent.mkdir(parents=True, exist_ok=True)
    with _alone(state.parent / ".lock"):
        if state.is_dir():
            return True
        _sweep(state.parent)
        partial = state.with_name(f".{state.name}.{uuid.uuid4().hex}")
        try:
            for item in objects:
                name = PurePosixPath(item.key).relative_to(prefix)
                source.download(item.key, partial / PurePosixPath(prefix).name / name)
            if _listed(source, prefix) != objects:
                return False
            try:
                partial.rename(state)
            except OSError:
                if not state.is_dir():  # where nothing locks, another process may be first
                    raise
            return True
        except NotFoundError:
            return False
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _sweep(copies: Path) -> None:
    for folder in copies.iterdir():
        with suppress(OSError):
            if folder.is_dir() and time.time() - folder.stat().st_mtime > _KEPT_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Let one process at a time in; all of them where the file system has no locks."""
    with file.open("w") as lock:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
