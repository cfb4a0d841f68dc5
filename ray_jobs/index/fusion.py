"""Fusion: several merged rankings of one batch of queries become one. Pure functions of arrays.

Guaranteed: the fused ranking depends on the merged rankings alone, so it does not depend on how rows are sharded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ray_jobs.index.merge import (
    TOLERANCE,
    By,
    Candidates,
    Floats,
    Ints,
    Keys,
    Ranking,
    concatenate,
    cut,
    run_lengths,
    run_starts,
    running_count,
    total_order,
)

Fusion = Literal["bounded", "minmax", "rrf"]


@dataclass(frozen=True)
class Fusing:
    """How rankings become one; see `fuse`."""

    fusion: Fusion
    weights: Mapping[str, float]
    lexical_bound: Floats  # (q,), what BM25 can reach at most for each query
    cosine: bool  # whether dense scores are cosines
    rrf_constant: int = 60


def fuse(rankings: Mapping[str, Candidates], fusing: Fusing, by: By, depth: int, keys: Keys) -> Ranking:
    """Fuse named rankings of one batch of queries into one, best first, at most `depth` a query.

    The fused score is the sum of weight x value over the rankings, where the value is

    "bounded": BM25 as a share of its bound (0 where that ranking lacks the competitor), and the cosine (that ranking's
    last one where it lacks the competitor). Both are absolute, so a weak best match keeps a low score.
    "minmax": the score scaled to [0, 1] between the ranking's last and first (Lee, SIGIR 1997), 0 where missing.
    "rrf": 1 / (constant + rank), 0 where missing (Cormack, Clarke and Büttcher, SIGIR 2009, with weights).

    Scores that are not cosines have no bound: "bounded" scales them as "minmax" does. A document is shown as its chunk
    in the ranking that contributes most to it.
    """
    names = sorted(rankings)
    union = concatenate([rankings[name] for name in names])
    values = np.concatenate([fusing.weights[name] * _values(name, rankings[name], fusing) for name in names])
    competitor = _competitors(union.query, union.groups(by))
    total = np.bincount(competitor, weights=values).astype(np.float64)
    best_first = np.lexsort((union.row, -values, competitor))
    shown = best_first[run_starts(competitor[best_first])] if len(best_first) else best_first
    fused = union[shown]
    total += _missing(rankings, fusing)[fused.query]
    # Keys are read where scores tie: not for what cannot be listed anyway.
    listed = np.flatnonzero(cut(fused.query, np.arange(len(fused)), total, depth))
    ranked = listed[total_order(fused[listed], total[listed], keys)]
    ranked = ranked[running_count(fused.query[ranked], np.ones(len(ranked), np.bool_)) <= depth]
    stages = {}
    start = 0
    for name in names:
        end = start + len(rankings[name])
        stage = np.full(len(total), np.nan)
        stage[competitor[start:end]] = union.score[start:end]
        stages[name] = stage[ranked]
        start = end
    chosen = fused[ranked]
    final = Candidates(chosen.query, chosen.shard, chosen.row, chosen.document, chosen.selection, total[ranked])
    return Ranking(final, stages)


def _competitors(query: Ints, group: Ints) -> Ints:
    """Numbers each (query, group), in order: (n,) from 0."""
    numbers = np.empty(len(query), np.int64)
    if len(query):
        order = np.lexsort((group, query))
        numbers[order] = np.cumsum(run_starts(query[order]) | run_starts(group[order])) - 1
    return numbers


def _values(name: str, ranking: Candidates, fusing: Fusing) -> Floats:
    """The value of each entry of a ranking, above that of a competitor which the ranking lacks."""
    if fusing.fusion == "rrf":
        ranks = running_count(ranking.query, np.ones(len(ranking), np.bool_))
        return 1.0 / (fusing.rrf_constant + ranks.astype(np.float64))
    if fusing.fusion == "bounded" and name == "lexical":
        return ranking.score / np.maximum(fusing.lexical_bound[ranking.query], TOLERANCE)
    if fusing.fusion == "bounded" and fusing.cosine:
        return ranking.score - _last(ranking, len(fusing.lexical_bound))[ranking.query]
    return _scaled(ranking)


def _missing(rankings: Mapping[str, Candidates], fusing: Fusing) -> Floats:
    """What a competitor has before any ranking holds it, (q,)."""
    if fusing.fusion == "bounded" and fusing.cosine:
        return fusing.weights["dense"] * _last(rankings["dense"], len(fusing.lexical_bound))
    return np.zeros(len(fusing.lexical_bound))


def _last(ranking: Candidates, queries: int) -> Floats:
    """The lowest score of each query's ranking, (q,); 0 without one."""
    last = np.zeros(queries)
    last[ranking.query] = ranking.score  # a ranking descends: the last entry of a query stays
    return last


def _scaled(ranking: Candidates) -> Floats:
    if not len(ranking):
        return np.empty(0)
    starts = np.flatnonzero(run_starts(ranking.query))
    lengths = run_lengths(starts, len(ranking))
    high = np.repeat(ranking.score[starts], lengths)
    low = np.repeat(ranking.score[starts + lengths - 1], lengths)
    flat = high - low <= TOLERANCE
    return np.where(flat, 1.0, (ranking.score - low) / np.where(flat, 1.0, high - low))
