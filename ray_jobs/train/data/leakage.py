"""Leaks: rows that are found again in a split, or in an evaluation set, that they should not help with.

What is asked decides, whatever the answer: the same or nearly the same question is a leak. Only of questions on
passages (qa) must the passage be near as well. A row leaks upwards: from train to validation, test and evaluation sets,
from validation to test and evaluation sets, from test to evaluation sets. A row that is removed, as a duplicate or as a
leak, makes no other row a leak.

Shared documents are no leaks. A row of retrieval data whose passage a split above its own is about too strays: where
such rows are split by their source it is removed, unless leaks are kept. Else they are counted: how many rows of a
split or an evaluation set are about a passage that training rows are about too, and which are not. Evaluation sets
share their corpus by design; a query then counts as shared if any of its passages is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ray_jobs.corpus.sketch import Banding
from ray_jobs.train.data.candidates import Buckets, Mask, NumberedBands, Positions, crossing, nearness
from ray_jobs.train.data.duplicates import Match
from ray_jobs.train.data.keys import Keys
from ray_jobs.train.data.splitting import SPLITS

Places = npt.NDArray[np.int16]


@dataclass
class Leak:
    """What one split has in common with a place above it."""

    split: int
    place: int
    same: list[Match] = field(default_factory=list)  # what is asked is equal, but for case and white space
    near: list[Match] = field(default_factory=list)
    found: set[int] = field(default_factory=set)  # questions of the place above, one position each

    @property
    def rows(self) -> list[int]:
        """The positions of the rows that leak."""
        return [match.row for match in (*self.same, *self.near)]


@dataclass(frozen=True, slots=True)
class _Sides:
    """The rows that may leak, by slot."""

    positions: Positions
    places: Places
    asked: npt.NDArray[np.uint64]
    documents: npt.NDArray[np.uint64]
    sketches: tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]  # of what is asked, and of the rest
    bands: NumberedBands

    @classmethod
    def of(cls, keys: Keys, places: Places, alive: Mask, banding: Banding) -> _Sides:
        """The rows that share a band of what is asked with a row of another place."""
        marked = np.zeros(len(alive), bool)
        for band in range(banding.bands):
            marked |= crossing(keys.column(f"asked_band_{band}"), places, alive)
        positions = np.flatnonzero(marked)
        sketches = keys.sketches(positions)
        asked, documents = keys.column("asked")[positions], keys.column("document")[positions]
        bands = NumberedBands(banding.keys(sketches[0]))
        return cls(positions, places[positions], asked, documents, sketches, bands)

    def buckets(self, place: int, alive: Mask, strict: bool) -> Buckets:
        """What rows of a place ask, to be found again."""
        buckets = Buckets(self.bands)
        passages = self.documents if strict else np.zeros_like(self.documents)
        for slot in _distinct(np.flatnonzero((self.places == place) & alive), self.asked, passages):
            buckets.add(int(slot))
        return buckets

    def leak(self, split: int, place: int, buckets: Buckets, threshold: float, strict: bool) -> Leak:
        """What rows of a split ask again."""
        leak = Leak(split, place)
        for slot in np.flatnonzero(self.places == split):
            others = buckets.sharing(int(slot))
            sketches = self.sketches if strict else self.sketches[:1]
            near = nearness(sketches, others, int(slot)) if len(others) else np.empty(0)
            hits = others[near >= threshold]
            if len(hits):
                best = int(near.argmax())
                match = Match(int(self.positions[slot]), int(self.positions[others[best]]), float(near[best]))
                (leak.same if (self.asked[hits] == self.asked[slot]).any() else leak.near).append(match)
                leak.found.update(self.positions[hits].tolist())
        return leak


def find_leaks(
    keys: Keys,
    places: Places,
    alive: Mask,
    banding: Banding,
    threshold: float,
    strict: Sequence[bool],
    *,
    keep: bool = False,
) -> list[Leak]:
    """The leaks between places, which are 0 to 2 for the splits and more for evaluation sets.

    `strict` says of each place whether its kind needs the rest to be near as well; two places must both. A row that
    leaks is removed unless `keep`: then rows of the splits below it that ask the same are no leaks for its sake.
    """
    sides = _Sides.of(keys, places, alive, banding)
    staying = np.ones(len(sides.positions), bool)
    above: dict[int, Buckets] = {}
    leaks: list[Leak] = []
    for split in reversed(range(len(SPLITS))):
        for place in range(split + 1, len(strict)):
            if place not in above:
                above[place] = sides.buckets(place, staying, strict[place])
            leak = sides.leak(split, place, above[place], threshold, strict[place] and strict[split])
            leaks += [leak] if leak.found else []
        if not keep:
            staying[np.isin(sides.positions, [row for leak in leaks for row in leak.rows])] = False
    return sorted(leaks, key=lambda leak: (leak.place, leak.split))


def strays(places: Places, alive: Mask, documents: npt.NDArray[np.uint64]) -> Positions:
    """The rows of the splits whose document a row of a split above them has too, ascending."""
    rows = np.flatnonzero(alive & (places < len(SPLITS)) & (documents != 0))
    distinct, document = np.unique(documents[rows], return_inverse=True)
    highest = np.zeros(len(distinct), places.dtype)
    np.maximum.at(highest, document, places[rows])
    return rows[places[rows] < highest[document]]


@dataclass(frozen=True, slots=True)
class Overlap:
    """How much of one place is about documents that training rows are about too."""

    place: int
    rows: int
    shared_rows: int
    units: int  # queries of retrieval data, else rows
    shared_units: int
    disjoint: Positions  # rows whose unit shares nothing, ascending


def document_overlap(
    place: int, places: Places, alive: Mask, documents: npt.NDArray[np.uint64], units: npt.NDArray[np.uint64]
) -> Overlap | None:
    """The overlap of `place` with training; None where its rows, or those of training, have no documents."""
    training = documents[alive & (places == SPLITS.index("train")) & (documents != 0)]
    rows = np.flatnonzero(alive & (places == place) & (documents != 0))
    if not len(training) or not len(rows):
        return None
    shared = np.isin(documents[rows], training)
    distinct, unit = np.unique(units[rows], return_inverse=True)
    of_unit = np.zeros(len(distinct), bool)
    of_unit[unit[shared]] = True
    return Overlap(
        place=place,
        rows=len(rows),
        shared_rows=int(shared.sum()),
        units=len(distinct),
        shared_units=int(of_unit.sum()),
        disjoint=rows[~of_unit[unit]],
    )


def _distinct(slots: Positions, asked: npt.NDArray[np.uint64], document: npt.NDArray[np.uint64]) -> Positions:
    """The first of the slots that ask the same of the same document: the others would find nothing more."""
    pairs = np.stack([asked[slots], document[slots]], axis=1)
    _, first = np.unique(pairs, axis=0, return_index=True)
    return np.sort(slots[first])
