"""A courtesy among runs that write to one index: the second one is told before it begins.

Guaranteed: nothing is lost or doubled without it; the fence is the manifest, which only one run creates. A run that
was killed on this machine is in nobody's way; one on another machine for as long as its last sign of life counts.
Not guaranteed: that two runs which begin in the same moment are told apart; then one of them is told at the end.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace

import psutil

from ray_jobs.errors import ConflictError, NotFoundError, TandemError
from ray_jobs.index import layout
from ray_jobs.storage import Storage, new_id, now

BEAT_SECONDS = 10.0
COUNTS_SECONDS = 60.0
"""How long a sign of life counts."""


@dataclass(frozen=True)
class Holder:
    """Who writes."""

    job_id: str  # sorts by time
    machine: str
    process: int
    since: float  # when that process began, seconds since the epoch: numbers of processes come again
    began: str
    writing: bool = False  # False: it still looks whether it is the only one

    def lost(self) -> bool:
        """Whether it is known to be dead: only a process of this machine can be."""
        if self.machine != socket.gethostname():
            return False
        try:
            return abs(psutil.Process(self.process).create_time() - self.since) > 1
        except psutil.NoSuchProcess:
            return True


@contextmanager
def held(storage: Storage, index: str, job_id: str) -> Iterator[None]:
    """Write to the index as the only one; raises ConflictError where another run does."""
    own = Holder(job_id, socket.gethostname(), os.getpid(), psutil.Process().create_time(), now())
    signs = _Signs(storage, index, own)
    try:
        signs.give()
        _check(storage, index, own, signs.last)
        signs.holder = replace(own, writing=True)
        signs.give()
        with signs.kept_up():
            yield
    finally:
        signs.take_back()


class _Signs:
    """Signs of life: objects are never written anew, so that each is one of its own and takes the place of the last."""

    def __init__(self, storage: Storage, index: str, holder: Holder) -> None:
        self._storage = storage
        self._folder = layout.leases(index)
        self.holder = holder
        self.last = ""

    def give(self) -> None:
        """Leave a sign and take the one before back."""
        before, self.last = self.last, f"{self._folder}/{new_id()}.json"
        self._storage.create(self.last, json.dumps(asdict(self.holder)).encode())
        if before:
            self._storage.delete(before)

    def take_back(self) -> None:
        """Leave no sign."""
        if self.last:
            with suppress(TandemError):  # it ends by itself
                self._storage.delete(self.last)

    @contextmanager
    def kept_up(self) -> Iterator[None]:
        """A sign every BEAT_SECONDS."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(BEAT_SECONDS):
                with suppress(TandemError):  # a store that is away for a moment; the fence does not depend on it
                    self.give()

        thread = threading.Thread(target=beat, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _check(storage: Storage, index: str, own: Holder, sign: str) -> None:
    """Raise ConflictError where another run has left a sign that counts, by the clock of the store."""
    signs = {item.key: item.modified for item in storage.list(layout.leases(index))}
    for key in sorted(set(signs) - {sign}):
        # Of two that look at the same time the first one writes.
        age = max(0.0, signs.get(sign, 0.0) - signs[key])
        other = _holder(storage, key)
        if other is None or other.lost() or age > COUNTS_SECONDS:
            storage.delete(key)
        elif other.writing or other.job_id < own.job_id:
            raise ConflictError(
                f"index={index}: another run writes to it (job {other.job_id}, process {other.process} on "
                f"{other.machine}, since {other.began}, last sign of life {age:.0f} s ago); wait for its end or stop "
                f"it, then run the command again; if it is lost, it is in the way for {COUNTS_SECONDS - age:.0f} s more"
            )


def _holder(storage: Storage, key: str) -> Holder | None:
    try:
        return Holder(**json.loads(storage.read(key)))
    except (NotFoundError, ValueError, TypeError):  # taken back meanwhile, or nothing that this version has left
        return None
