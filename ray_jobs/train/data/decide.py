"""Decide over all rows: which are duplicates, which leak, and what shares its documents with training.

Guaranteed: decisions follow from the rows and their order in the inputs alone, not from the parts in which they were
staged. Held in memory: the columns of keys.py, no texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ray_jobs.corpus.sketch import Banding
from ray_jobs.train.data.candidates import Mask, Positions
from ray_jobs.train.data.config import PrepareConfig
from ray_jobs.train.data.duplicates import Match, first_of_same, near_duplicates
from ray_jobs.train.data.keys import Keys
from ray_jobs.train.data.kind import Kind
from ray_jobs.train.data.leakage import Leak, Overlap, Places, document_overlap, find_leaks, strays
from ray_jobs.train.data.splitting import SPLITS


@dataclass
class Decisions:
    """What becomes of each row, by position; rows of evaluation sets come after those that are prepared."""

    places: Places  # 0 to 2: the splits; from 3: evaluation sets
    kept: Mask
    exact: int = 0
    near: list[Match] = field(default_factory=list)
    leaks: list[Leak] = field(default_factory=list)
    leaked: int = 0
    strayed: Positions = field(default_factory=lambda: np.zeros(0, np.int64))  # a split above has their document too
    overlaps: list[Overlap] = field(default_factory=list)
    questions: dict[int, int] = field(default_factory=dict)  # distinct ones, by place


def decide(
    keys: Keys, rows: int, evaluation: Sequence[tuple[int, Kind]], kind: Kind, config: PrepareConfig, banding: Banding
) -> Decisions:
    """Decide on the first `rows` of `keys`; those of the evaluation sets follow, (rows, kind) each."""
    places = np.concatenate(
        [keys.column("place", np.int8)[:rows].astype(np.int16)]
        + [np.full(count, len(SPLITS) + number, np.int16) for number, (count, _) in enumerate(evaluation)]
    )
    decisions = Decisions(places, np.ones(len(keys), bool))
    _drop_duplicates(keys, rows, config, banding, decisions)
    kinds = [kind] * len(SPLITS) + [found for _, found in evaluation]
    strict = [not found.leaks_by_asked for found in kinds]
    asked, documents = keys.column("asked"), keys.column("document")
    if config.splits_documents(kind.name) and not config.keep_leaks:
        decisions.strayed = strays(places, decisions.kept, documents)
        decisions.kept[decisions.strayed] = False
    decisions.leaks = find_leaks(
        keys, places, decisions.kept, banding, config.near_threshold, strict, keep=config.keep_leaks
    )
    decisions.questions = {
        leak.place: len(_questions(asked, documents, decisions.kept & (places == leak.place), strict[leak.place]))
        for leak in decisions.leaks
    }
    if not config.keep_leaks:
        leaking = np.unique([row for leak in decisions.leaks for row in leak.rows]).astype(np.int64)
        decisions.kept[leaking] = False
        decisions.leaked = len(leaking)
    for place, found in enumerate(kinds):
        if place > 0:
            units = asked if found.name == "retrieval" else np.arange(len(keys)).astype(np.uint64)
            overlap = document_overlap(place, places, decisions.kept, documents, units)
            decisions.overlaps += [overlap] if overlap is not None else []
    return decisions


def _drop_duplicates(keys: Keys, rows: int, config: PrepareConfig, banding: Banding, decisions: Decisions) -> None:
    first = first_of_same(keys.column("content_high")[:rows], keys.column("content_low")[:rows])
    same = first != np.arange(rows)
    decisions.kept[:rows][same] = False
    decisions.exact = int(same.sum())
    if config.near_duplicates:
        decisions.near = near_duplicates(keys, decisions.kept[:rows].copy(), banding, config.near_threshold)
        decisions.kept[[match.row for match in decisions.near]] = False


def _questions(asked: np.ndarray, documents: np.ndarray, chosen: Mask, strict: bool) -> np.ndarray:
    """The distinct questions of some rows; with their documents where these tell questions apart."""
    pairs = np.stack([asked[chosen], documents[chosen] if strict else np.zeros(int(chosen.sum()), np.uint64)], axis=1)
    return np.unique(pairs, axis=0)
