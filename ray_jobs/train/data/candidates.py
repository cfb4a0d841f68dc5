"""Which rows may be near: those that share a band. Exact over the bands, so nothing depends on who looked first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ray_jobs.corpus.sketch import similarity

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


class NumberedBands:
    """The bands of slots, each distinct key of a band as a number; four bytes a slot and band."""

    def __init__(self, keys: npt.NDArray[np.uint64]) -> None:
        """`keys` are (slots, bands)."""
        kind = np.min_scalar_type(keys.size)
        self.of = np.empty(keys.shape, kind)
        """The numbers of each slot, ascending."""
        counts, total = [], 0
        for band in range(keys.shape[1]):
            _, numbers, found = np.unique(keys[:, band], return_inverse=True, return_counts=True)
            self.of[:, band] = numbers + total
            counts.append(found)
            total += len(found)
        self.starts = np.cumsum(np.concatenate([[0], *counts])).astype(kind)
        """For each number, how many slots have one that is lower; last, how many have any."""


class Buckets:
    """Slots by the bands of their signatures, so that another one finds those it may be near to."""

    def __init__(self, bands: NumberedBands) -> None:
        self._bands = bands
        self._filled = np.zeros(len(bands.starts) - 1, bands.starts.dtype)
        self._slots = np.empty(int(bands.starts[-1]), bands.starts.dtype)

    def add(self, slot: int) -> None:
        """Remember a slot."""
        numbers = self._bands.of[slot]
        self._slots[self._bands.starts[numbers] + self._filled[numbers]] = slot
        self._filled[numbers] += 1

    def size(self, slot: int) -> int:
        """How many entries `sharing` looks at."""
        return int(self._filled[self._bands.of[slot]].sum())

    def sharing(self, slot: int) -> Positions:
        """The slots that were added and share a band with this one, ascending."""
        numbers = self._bands.of[slot]
        starts, filled = self._bands.starts[numbers].tolist(), self._filled[numbers].tolist()
        parts = [self._slots[start : start + size] for start, size in zip(starts, filled, strict=True) if size]
        return np.unique(np.concatenate(parts)).astype(np.int64) if parts else np.empty(0, np.int64)


def nearness(sketches: Sequence[npt.NDArray[np.uint32]], slots: Positions, slot: int) -> npt.NDArray[np.float64]:
    """How near each of `slots` is to `slot`: the least of the similarities of its sketches."""
    return np.asarray(np.min([similarity(sketch[slots], sketch[slot]) for sketch in sketches], axis=0))
