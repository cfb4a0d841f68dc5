"""Pieces of a stage as rows of Ray Data: columns of JSON in, one receipt a row out.

Guaranteed: a piece whose receipt is in the store is not made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ray_jobs.ingest.work import Work

Batch = dict[str, Any]


def rows_of(batch: Batch, *columns: str) -> Iterator[tuple[Any, ...]]:
    """The rows of a batch, of each these columns."""
    return zip(*(batch[name].tolist() for name in columns), strict=True)


def once(work: Work, kind: str, number: int, key: str, make: Callable[[], str]) -> Batch:
    """The row of a piece: its receipt as it was found, else as it is made now."""
    found = work.find(kind, key)
    return row_of(number, found or work.keep(kind, key, make()), found=found is not None)


def row_of(number: int, receipt: str, found: bool) -> Batch:
    """The row of a piece; `found`: an earlier run had made it."""
    return {"number": [number], "receipt": [receipt], "found": [found]}
