"""Scratch folders: each of one process, removed by it, or by one that comes after where it was killed.

    ROOT/tandem-scratch-BOOT-RANDOM    BOOT tells which machine, since when; whoever works in it holds a lock on it

Guaranteed: as long as a process of this machine works in a folder, it stays; when the process is gone, it goes as soon
as another one is made beside it. A folder of another machine, or on a file system without locks, goes when nothing in
it has changed for a week. Not guaranteed: that a process there which writes nothing for a week keeps its folder.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ray_jobs.errors import StorageError
from ray_jobs.storage.objects import explain_os_error, is_refusal

_PREFIX = "tandem-scratch-"
_NEW_SECONDS = 60.0  # until its lock is held
_ABANDONED_SECONDS = 7 * 24 * 3600.0


@contextmanager
def own_folder(root: Path, name: str) -> Iterator[Path]:
    """A new folder in the folder `root`, removed at the end; what killed processes have left there goes first.

    Raises StorageError, which calls `root` by `name`, where the disk takes no folder or no more; other errors of the
    body stay what they are.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{_boot()}-", dir=root))
    except OSError as error:
        raise _unwritable(name, error) from error
    try:
        with _locked(folder):
            yield folder
    except OSError as error:
        if not is_refusal(error, folder):
            raise
        raise _unwritable(name, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unwritable(name: str, error: OSError) -> StorageError:
    return StorageError(f"cannot write {name}: {explain_os_error(error)}")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, where the file system has any; the kernel lets go of it with the process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _sweep(root: Path) -> None:
    for folder in root.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # of another user, or another process was first
            if time.time() - folder.stat().st_mtime > _NEW_SECONDS and _is_left(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_left(folder: Path) -> bool:
    """Whether no process works in it, as far as this machine can tell."""
    if folder.name.startswith(f"{_PREFIX}{_boot()}-"):
        try:
            return not _is_held(folder)
        except OSError:
            pass  # no locks here
    newest = max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
    return time.time() - newest > _ABANDONED_SECONDS


def _is_held(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _boot() -> str:
    """The same for all processes whose locks this kernel knows, in whichever container."""
    try:
        found = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        found = socket.gethostname()
    return found.strip().replace("-", "")[:12]
