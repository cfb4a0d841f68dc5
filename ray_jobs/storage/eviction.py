"""Which copies of a cache go when they outgrow their bound: those that were asked for longest ago.

Guaranteed: none goes that was asked for in the last ten minutes, nor one that a process of this machine has open or
mapped, which the kernel tells: it grants a lease for writing only on a file that nobody else has open (fcntl(2)), and
who opens it in that moment waits. Where a file system has no leases, a copy goes a day after it was asked for; who has
it mapped goes on reading it. Not guaranteed: that a copy stays which another machine reads over a shared file system.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

GRACE_SECONDS = 600.0
"""From the moment a copy is asked for until it must be open."""

_UNKNOWN_SECONDS = 24 * 3600.0  # where it cannot be told whether a copy is in use
FOLDERS = "-folders"
"""How the names of folders end that hold copies of whole folders, which have rules of their own."""


@dataclass(frozen=True)
class Copy:
    """A file of the cache."""

    path: Path
    size: int  # bytes
    used: float  # when it was last asked for, seconds since the epoch


def shrink(folder: Path, bound: int) -> int:
    """Remove copies below `folder` until at most `bound` bytes are left, or all that may go is gone; returns bytes."""
    now = time.time()
    copies = list(_copies(folder))
    excess, removed = sum(copy.size for copy in copies) - bound, 0
    for copy in sorted(copies, key=lambda copy: copy.used):
        if removed >= excess or now - copy.used < GRACE_SECONDS:
            break
        if _remove(copy, now):
            removed += copy.size
    return removed


def _copies(folder: Path) -> Iterator[Copy]:
    """The files below `folder`, what killed processes have left among them."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                if entry.name != ".locks" and not entry.name.endswith(FOLDERS):
                    yield from _copies(Path(entry.path))
            else:
                status = entry.stat(follow_symlinks=False)
                yield Copy(Path(entry.path), status.st_size, status.st_atime)
        except OSError:  # it has gone meanwhile
            continue


def _remove(copy: Copy, now: float) -> bool:
    """Remove a copy that nobody has open and nobody has asked for since it was found."""
    try:
        descriptor = os.open(copy.path, os.O_RDONLY)
    except OSError:
        return False
    try:
        free = _lease(descriptor)
        if free is None:
            free = now - copy.used > _UNKNOWN_SECONDS
        if not free or os.fstat(descriptor).st_atime > copy.used:
            return False
        os.unlink(copy.path)
    except OSError:
        return False
    finally:
        os.close(descriptor)  # and with it the lease
    return True


def _lease(descriptor: int) -> bool | None:
    """Keep a file from being opened until it is closed here; False where somebody has it open, None where none can."""
    try:
        # Whoever opens it now is announced by a signal, by default one that ends this process; this one is ignored.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        return False if error.errno == errno.EAGAIN else None
    return True
