"""Finished pieces of a run that has not published yet: a receipt a piece, known by all that its content depends on.

Guaranteed: a piece whose receipt is there is whole, since what it names was durable before; no retry and no later run
makes it again; of two that make one piece at once, both go on with the receipt that was first. Pieces belong to the
snapshot that a run builds on, so that none of them is in a snapshot already. Not guaranteed: that objects of a piece
that was lost before its receipt are removed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count

from ray_jobs.errors import ConflictError, NotFoundError
from ray_jobs.index import layout
from ray_jobs.storage import Storage, open_storage


@dataclass(frozen=True)
class PieceLimits:
    """What one piece may cost."""

    seconds: float = 3600.0  # on one worker
    retries: int = 10  # workers that are lost with it, but for those that were too slow


@dataclass(frozen=True)
class Place:
    """Where a run writes, as its workers are told, and what a piece may cost them."""

    store: str
    index: str
    parent: int  # snapshot; 0 for none
    limits: PieceLimits = PieceLimits()

    def open(self) -> Work:
        """What is finished there."""
        return Work(open_storage(self.store), self.index, self.parent, self.limits)


class Work:
    """What runs that build on snapshot `parent` of an index (0: on none) have finished."""

    def __init__(self, storage: Storage, index: str, parent: int, limits: PieceLimits = PieceLimits()) -> None:
        self.storage = storage
        self.index = index
        self.limits = limits
        self._parent = parent
        self._receipts = layout.receipts(index, parent)
        self.folder = layout.work(index, parent)
        """For what is only in flight."""

    def find(self, kind: str, key: str) -> str | None:
        """The receipt of a piece; None where there is none."""
        try:
            return self.storage.read(self._place(kind, key)).decode()
        except NotFoundError:
            return None

    def keep(self, kind: str, key: str, receipt: str) -> str:
        """Say that a piece is finished; returns the receipt that counts, the first one."""
        try:
            self.storage.create(self._place(kind, key), receipt.encode())
        except ConflictError:
            return self.find(kind, key) or receipt
        return receipt

    def forget(self, kind: str, key: str) -> None:
        """Let a piece be made again."""
        self.storage.delete(self._place(kind, key))

    def late(self, kind: str, key: str) -> int:
        """How often a piece took too long."""
        return next(number for number in count() if not self.storage.exists(f"{self._late(kind, key)}/{number}"))

    def was_late(self, kind: str, key: str) -> None:
        """Remember that a piece took too long."""
        self.storage.create(f"{self._late(kind, key)}/{self.late(kind, key)}", b"")

    def forgive(self, kind: str, key: str) -> None:
        """Forget that a piece took too long."""
        for item in list(self.storage.list(self._late(kind, key))):
            self.storage.delete(item.key)

    def begun(self) -> bool:
        """Whether a run has finished a piece and has not published."""
        return next(iter(self.storage.list(self._receipts)), None) is not None

    def clear(self) -> None:
        """Remove what is in flight here, and what runs have left that built on earlier snapshots.

        Receipts go first: cut short, it leaves none whose objects are gone.
        """
        for parent in sorted({layout.work_parent(item.key) for item in self.storage.list(layout.works(self.index))}):
            if parent <= self._parent:
                for below in (layout.receipts(self.index, parent), layout.work(self.index, parent)):
                    for item in list(self.storage.list(below)):
                        self.storage.delete(item.key)

    def _late(self, kind: str, key: str) -> str:
        return f"{self.folder}/late/{kind}/{key}"

    def _place(self, kind: str, key: str) -> str:
        return f"{self._receipts}/{kind}/{key}.json"


def key_of(*parts: str | int | Sequence[str]) -> str:
    """What a piece is known by: a hash of all that its content depends on, the version of the code included."""
    return hashlib.sha256(json.dumps([version("tandem"), *parts]).encode()).hexdigest()[:32]
