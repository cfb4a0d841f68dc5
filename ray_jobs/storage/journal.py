"""A journal: lines that others can read while they are written, and one object in the end.

    KEY              on a disk: grows line by line; in a bucket: written when the journal is closed
    KEY.parts/...    in a bucket, until then: every few seconds an object of the lines that are new

Guaranteed: what is at KEY after `close` is every line, in order, and no parts are beside it; memory holds the lines of
one part at most; writing waits for no network, and a store that refuses costs lines and never the work. Of a process
that was killed, on a disk the lines up to the last one, which may be cut short; in a bucket those of the parts.
Not guaranteed: that the last lines outlive a machine that loses its power.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from ray_jobs.errors import TandemError
from ray_jobs.storage import LocalStorage, Storage

PART_SECONDS = 5.0
_SLOWEST = 60.0  # seconds between two parts of a long journal
_SHARE = 0.01  # of the time so far, between two parts


class Journal(Protocol):
    """Where lines go."""

    def write(self, line: str) -> None:
        """Add one line; without its end."""
        ...


@contextmanager
def journal(storage: Storage, key: str) -> Iterator[Journal]:
    """A journal at `key`, which must be free; closed at the end, however that comes."""
    with ExitStack() as stack:
        if isinstance(storage, LocalStorage):
            yield stack.enter_context(_appended(storage.root / key))
        else:
            folder = stack.enter_context(storage.scratch())
            yield stack.enter_context(_in_parts(storage, key, folder / "journal"))


@contextmanager
def _appended(path: Path) -> Iterator[Journal]:
    """Lines at the end of a file."""
    descriptor = None
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
    try:
        yield _Lines(descriptor)
    finally:
        if descriptor is not None:
            with suppress(OSError):
                os.fsync(descriptor)
            os.close(descriptor)


class _Lines:
    """Writes to a descriptor; None: the disk took no file."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def write(self, line: str) -> None:
        if self._descriptor is not None:
            with suppress(OSError):
                os.write(self._descriptor, f"{line}\n".encode())


@contextmanager
def _in_parts(storage: Storage, key: str, spool: Path) -> Iterator[Journal]:
    """Lines in a file of this machine and in parts in the store; in the end the file takes the place of the parts."""
    parts = _Parts(storage, key, spool)
    with suppress(OSError):
        parts.begin()
    try:
        yield parts
    finally:
        parts.close()


class _Parts:
    def __init__(self, storage: Storage, key: str, spool: Path) -> None:
        self._storage = storage
        self._key = key
        self._spool = spool
        self._new: list[str] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._names: list[str] = []
        self._open = False
        self._thread = threading.Thread(target=self._publish_again_and_again, name="journal", daemon=True)

    def begin(self) -> None:
        self._spool.touch()
        self._thread.start()
        self._open = True

    def write(self, line: str) -> None:
        if self._open:
            with self._lock:
                self._new.append(f"{line}\n")

    def close(self) -> None:
        if not self._open:
            return
        self._over.set()
        self._thread.join()
        with suppress(TandemError, OSError):
            self._spill()
            self._storage.upload(self._key, self._spool)
            for name in self._names:
                self._storage.delete(name)

    def _publish_again_and_again(self) -> None:
        elapsed = 0.0
        pause = PART_SECONDS
        while not self._over.wait(pause):
            elapsed += pause
            pause = min(max(PART_SECONDS, _SHARE * elapsed), _SLOWEST)
            with suppress(TandemError, OSError):
                self._publish()

    def _publish(self) -> None:
        text = self._spill()
        if text:
            name = f"{self._key}.parts/{len(self._names):06d}.jsonl"
            self._names.append(name)  # first: a write that seems to fail may have come to its end
            self._storage.create(name, text.encode())

    def _spill(self) -> str:
        """Move the new lines into the file."""
        with self._lock:
            text = "".join(self._new)
            self._new.clear()
        with self._spool.open("a", encoding="utf-8") as file:
            file.write(text)
        return text


def read_lines(storage: Storage, key: str) -> Iterator[str]:
    """The whole lines of a journal, of one that is being written or was cut short, too; none where there is none."""
    keys = [key] if storage.exists(key) else sorted(item.key for item in storage.list(f"{key}.parts"))
    for name in keys:
        with storage.local(name).open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line[:-1].decode(errors="replace")
