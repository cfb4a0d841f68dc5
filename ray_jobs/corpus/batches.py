"""Items in batches of about equal size, so that memory holds one batch, however many items there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def batches_of(items: Iterable[Item], size: Callable[[Item], int], full: int) -> Iterator[list[Item]]:
    """Items in order; a batch ends with the item that brings its sizes to `full` or above."""
    batch: list[Item] = []
    filled = 0
    for item in items:
        batch.append(item)
        filled += size(item)
        if filled >= full:
            yield batch
            batch, filled = [], 0
    if batch:
        yield batch
