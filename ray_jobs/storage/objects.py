"""What stores have in common: how objects are named, listed, hashed, and how a refusal is explained."""

from __future__ import annotations

import errno
import hashlib
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

BLOCK = 1 << 20  # bytes read or written at a time


@dataclass(frozen=True)
class ObjectInfo:
    """One object of a listing."""

    key: str
    size: int  # bytes
    modified: float  # seconds since the epoch
    version: str  # another one where the key was written anew with other bytes


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where this machine keeps what can be made again: TANDEM_CACHE, else `tandem` in the user's cache folder."""
    own = os.environ.get("TANDEM_CACHE")
    return Path(own or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "tandem").expanduser()


def explain_os_error(error: OSError) -> str:
    """One line for a refusal of the operating system, with what to do about it."""
    remedies = {
        errno.ENOSPC: "no space left on the device; free some or choose another --store",
        errno.EDQUOT: "disk quota exceeded; free some space or choose another --store",
        errno.EACCES: "permission denied; choose a --store that you may write",
        errno.EPERM: "operation not permitted; choose a --store that you may write",
        errno.EROFS: "the file system is read-only; choose another --store",
        errno.ENOTDIR: "a part of the path is a file; choose another --store",
        errno.EEXIST: "a part of the path is a file; choose another --store",
        errno.EMFILE: "too many open files; raise the limit (ulimit -n)",
    }
    return remedies.get(error.errno or 0, f"{error.strerror or error}; check the path and the disk")


def is_refusal(error: OSError, folder: Path) -> bool:
    """Whether the disk of `folder` takes no more: other errors, and those of files elsewhere, are not its own."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
    named = error.filename
    return full and (named is None or Path(os.fsdecode(named)).is_relative_to(folder))


def now() -> str:
    """The time as records have it: UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def new_id() -> str:
    """A unique id that sorts by time: seconds since the epoch in hexadecimal, then 64 random bits."""
    return f"{int(time.time()):08x}-{uuid.uuid4().hex[:16]}"
