"""Hashes of local files, remembered, so that to open an index or a model does not read all of it each time.

Guaranteed: a file whose size, modification time or inode changed is hashed again. Not guaranteed: that a disk which
changes bytes behind its file system's back is noticed; `tandem index verify` reads everything.
"""

from __future__ import annotations

import hashlib
import uuid
from contextlib import suppress
from pathlib import Path

from ray_jobs.storage.objects import cache_folder


def holds(path: Path, sha256: str) -> bool:
    """Whether the bytes of `path` have this hash, now or when the file was last hashed in this very state."""
    return digest(path) == sha256


def digest(path: Path, algorithm: str = "sha256") -> str:
    """The hash of a file in hex, by an algorithm of hashlib, of now or of when it was last hashed in this state."""
    note = _note(path, algorithm)
    with suppress(OSError):
        return note.read_text(encoding="ascii")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    _write(note, found)
    return found


def remember(path: Path, sha256: str) -> None:
    """Note the hash of a file, by whom has just found it."""
    _write(_note(path, "sha256"), sha256)


def _note(path: Path, algorithm: str) -> Path:
    status = path.stat()
    state = f"{path} {status.st_size} {status.st_mtime_ns} {status.st_ino} {algorithm}"
    return cache_folder() / "hashes" / hashlib.sha256(state.encode()).hexdigest()


def _write(note: Path, found: str) -> None:
    # Without a place to remember it, the file is hashed again next time.
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        temporary = note.with_name(f".{uuid.uuid4().hex}")
        temporary.write_text(found, encoding="ascii")
        temporary.rename(note)
