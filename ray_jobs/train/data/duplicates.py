"""Rows that are the same, and rows that are nearly the same.

Exact: equal content of all the kind's columns, ids apart. Near: what is asked and what is to be learnt are both similar
to those of an earlier row that stays, so that equal answers to different questions, and different answers to one
question, are no duplicates. Rows of different labels are never near. The text that decides, by kind:

    kind         asked                                       rest
    messages     turns before the last one, system apart     the last turn
    completion   prompt                                      completion
    preference   prompt                                      chosen, and rejected backwards
    label        prompt                                      completion
    retrieval    query                                       positive, and as much of the negatives
    qa           question                                    passage

Claims that contradict each other differ in a word and are near: switch near duplicates off for such data (SciFact); the
card says how many of those that went asked in other words, or had another target.

Guaranteed: of several, the first in the order of the inputs stays; the same rows give the same duplicates however they
were read. Not guaranteed: that every near pair is found. Bands miss a pair by chance; `Banding.chance` says how often.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ray_jobs.corpus.sketch import Banding
from ray_jobs.train.data.candidates import Buckets, Mask, NumberedBands, Positions, nearness, sharing
from ray_jobs.train.data.keys import Keys


@dataclass(frozen=True, slots=True)
class Match:
    """A row that is near to another one."""

    row: int  # position
    of: int  # position
    similarity: float  # estimated


def first_of_same(high: npt.NDArray[np.uint64], low: npt.NDArray[np.uint64]) -> Positions:
    """For each row, the position of the first one with the same content: its own, unless it is a duplicate."""
    first = np.arange(len(high))
    if not len(first):
        return first
    order = np.lexsort((first, low, high))
    changes = (np.diff(high[order]) != 0) | (np.diff(low[order]) != 0)
    begins = np.r_[True, changes]
    first[order] = order[np.flatnonzero(begins)][np.cumsum(begins) - 1]
    return first


def near_duplicates(keys: Keys, alive: Mask, banding: Banding, threshold: float) -> list[Match]:
    """The rows that are alive and nearly the same as an earlier one that stays, in order."""
    asked, rest = (_sharing_any(keys, name, alive, banding) for name in ("asked", "rest"))
    positions = np.flatnonzero(asked & rest)
    sketches = keys.sketches(positions)
    exact = keys.column("exact")[positions]
    buckets = [Buckets(NumberedBands(banding.keys(sketch))) for sketch in sketches]
    matches = []
    for slot, position in enumerate(positions):
        # Thousands of rows may ask the same and answer differently, or the other way round: the rarer side is asked.
        others = min(buckets, key=lambda side: side.size(slot)).sharing(slot)
        others = others[exact[others] == exact[slot]]
        near = nearness(sketches, others, slot) if len(others) else np.empty(0)
        if len(near) and near.max() >= threshold:
            best = int(near.argmax())
            matches.append(Match(int(position), int(positions[others[best]]), float(near[best])))
        else:
            for side in buckets:
                side.add(slot)
    return matches


def _sharing_any(keys: Keys, side: str, alive: Mask, banding: Banding) -> Mask:
    """The rows that share a band of one side with another row that is alive."""
    marked = np.zeros(len(alive), bool)
    for band in range(banding.bands):
        marked |= sharing(keys.column(f"{side}_band_{band}")[: len(alive)], alive)
    return marked
