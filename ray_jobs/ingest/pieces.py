"""Pieces of a stage as rows of Ray Data: columns of JSON in, one receipt a row out.

Each row that comes back also says when its piece was begun (`began`), how long that took here (`seconds`), by which
`worker`, and after how many `retries` of its task. Guaranteed: a piece whose receipt is in the store is not made again;
one that takes too long is taken from its worker, as overdue.py says.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from ray_jobs.ingest.overdue import in_time
from ray_jobs.ingest.work import Work
from ray_jobs.runtime import retries

Batch = dict[str, Any]


def rows_of(batch: Batch, *columns: str) -> Iterator[tuple[Any, ...]]:
    """The rows of a batch, of each these columns."""
    return zip(*(batch[name].tolist() for name in columns), strict=True)


def once(work: Work, kind: str, number: int, key: str, make: Callable[[], str]) -> Batch:
    """The row of a piece: its receipt as it was found, else as it is made now."""
    clock = Clock()
    found = work.find(kind, key)
    if found is not None:
        return clock.row(number, found, found=True)
    with in_time(work, kind, key):
        made = make()
    return clock.row(number, work.keep(kind, key, made), found=False)


def anew(work: Work, kind: str, number: int, make: Callable[[], str]) -> Batch:
    """The row of a piece that no run takes from another one: its receipt is not kept."""
    clock = Clock()
    with in_time(work, kind, str(number)):
        return clock.row(number, make(), found=False)


class Clock:
    """Time of one piece."""

    def __init__(self) -> None:
        self._began = time.time()
        self._started = time.monotonic()

    def row(self, number: int, receipt: str, found: bool) -> Batch:
        """The row of a piece that is there now; `found`: an earlier run had made it."""
        return {
            "number": [number],
            "receipt": [receipt],
            "found": [found],
            "began": [self._began],
            "seconds": [time.monotonic() - self._started],
            "worker": [f"{socket.gethostname()}:{os.getpid()}"],
            "retries": [retries()],
        }
