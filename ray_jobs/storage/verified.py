"""Which local files were found to have their recorded hash, so that opening an index does not read all of it each time.

Guaranteed: a file whose size, modification time or inode changed is hashed again. Not guaranteed: that a disk which
changes bytes behind its file system's back is noticed; `tandem index verify` reads everything.
"""

from __future__ import annotations

import hashlib
import uuid
from contextlib import suppress
from pathlib import Path

from ray_jobs.storage.objects import cache_folder, sha256_of


def holds(path: Path, sha256: str) -> bool:
    """Whether the bytes of `path` have this hash, now or when the file was last hashed in this very state."""
    status = path.stat()
    state = f"{path} {status.st_size} {status.st_mtime_ns} {status.st_ino} {sha256}"
    mark = _marks() / hashlib.sha256(state.encode()).hexdigest()
    if mark.exists():
        return True
    if sha256_of(path) != sha256:
        return False
    # Without a place to remember it, the file is hashed again next time.
    with suppress(OSError):
        mark.parent.mkdir(parents=True, exist_ok=True)
        temporary = mark.with_name(f".{uuid.uuid4().hex}")
        temporary.touch()
        temporary.rename(mark)
    return True


def _marks() -> Path:
    return cache_folder() / "verified"
