"""Which rows may be near: those that share a band. Exact over the bands, so nothing depends on who looked first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ray_jobs.train.data.sketch import similarity

Positions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def sharing(column: npt.NDArray[np.uint64], alive: Mask) -> Mask:
    """The rows whose key in one band another row that is alive has as well."""
    positions = np.flatnonzero(alive)
    order = np.argsort(column[positions], kind="stable")
    keys = column[positions][order]
    same = keys[1:] == keys[:-1]
    marked = np.zeros(len(positions), bool)
    marked[1:] |= same
    marked[:-1] |= same
    found = np.zeros(len(column), bool)
    found[positions[order[marked]]] = True
    return found


def crossing(column: npt.NDArray[np.uint64], places: npt.NDArray[np.int16], alive: Mask) -> Mask:
    """The rows whose key in one band a row of another place has as well."""
    found = np.zeros(len(column), bool)
    positions = np.flatnonzero(alive)
    if not len(positions):
        return found
    order = np.lexsort((places[positions], column[positions]))
    keys, there = column[positions][order], places[positions][order]
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    ends = np.r_[starts[1:], len(keys)] - 1
    crossed = there[starts] != there[ends]
    found[positions[order[np.repeat(crossed, ends - starts + 1)]]] = True
    return found


class Buckets:
    """Slots by the bands of their signatures, so that a new one finds those it may be near to."""

    def __init__(self, bands: int) -> None:
        self._tables: list[dict[int, list[int]]] = [{} for _ in range(bands)]

    def add(self, slot: int, keys: Sequence[int]) -> None:
        """Remember a slot."""
        for table, key in zip(self._tables, keys, strict=True):
            table.setdefault(key, []).append(slot)

    def size(self, keys: Sequence[int]) -> int:
        """How many entries `sharing` looks at."""
        return sum(len(table.get(key, ())) for table, key in zip(self._tables, keys, strict=True))

    def sharing(self, keys: Sequence[int]) -> Positions:
        """The slots that share a band, ascending."""
        found: set[int] = set()
        for table, key in zip(self._tables, keys, strict=True):
            found.update(table.get(key, ()))
        return np.array(sorted(found), np.int64)


def nearness(sketches: Sequence[npt.NDArray[np.uint32]], slots: Positions, slot: int) -> npt.NDArray[np.float64]:
    """How near each of `slots` is to `slot`: the least of the similarities of its sketches."""
    return np.asarray(np.min([similarity(sketch[slots], sketch[slot]) for sketch in sketches], axis=0))
