"""Merging: from the candidates of many shards to one ranking a query. Pure functions of arrays; no file, no index.

Guaranteed: the ranking over any split of the rows into shards equals the ranking over one shard, because each step is a
function of the union of candidates: a cut at a score with all its ties, a total order (score descending, then doc_id,
then ordinal).
Not guaranteed: anything about shards that did not answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

# What the same inner product may differ by between two ways of computing it in float32, as a share of it (above 1).
TOLERANCE = 1e-5

By = Literal["document", "chunk"]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
# (shards (n,), rows (n,)) -> doc_id and ordinal of each: the order in which equal scores are listed
Keys = Callable[[Ints, Ints], tuple[Sequence[str], Sequence[int]]]


@dataclass(frozen=True)
class Candidates:
    """Chunks proposed for a batch of queries: one entry of each array (n,) a proposal."""

    query: Ints  # position of the query in the batch
    shard: Ints  # position of the shard in the manifest
    row: Ints
    document: Ints  # number of the document inside the shard
    selection: Floats  # the score by which candidates are cut: what the index says
    score: Floats  # the score by which they are ranked: what the stored vectors say

    def __len__(self) -> int:
        return len(self.query)

    def __getitem__(self, chosen: npt.NDArray[np.bool_] | Ints) -> Candidates:
        return Candidates(
            self.query[chosen],
            self.shard[chosen],
            self.row[chosen],
            self.document[chosen],
            self.selection[chosen],
            self.score[chosen],
        )

    def groups(self, by: By) -> Ints:
        """One number a competitor: a chunk, or a document as its chunks."""
        local = self.document if by == "document" else self.row
        return (self.shard << 40) | local


@dataclass(frozen=True)
class Ranking:
    """Candidates in order: by query, then best first; one a competitor."""

    candidates: Candidates
    scores: Mapping[str, Floats] = field(default_factory=dict)  # a score a stage, NaN where it did not find the group


def concatenate(parts: Sequence[Candidates]) -> Candidates:
    """The union of the candidates of several shards."""
    return Candidates(
        np.concatenate([part.query for part in parts] or [np.empty(0, np.int64)]),
        np.concatenate([part.shard for part in parts] or [np.empty(0, np.int64)]),
        np.concatenate([part.row for part in parts] or [np.empty(0, np.int64)]),
        np.concatenate([part.document for part in parts] or [np.empty(0, np.int64)]),
        np.concatenate([part.selection for part in parts] or [np.empty(0)]),
        np.concatenate([part.score for part in parts] or [np.empty(0)]),
    )


def cut(query: Ints, group: Ints, score: Floats, count: int) -> npt.NDArray[np.bool_]:
    """Marks the entries (n,), in any order, of the best `count` groups of their query, ties at the end included."""
    queries = int(query.max()) + 1 if len(query) else 0
    order = np.lexsort((-score, query))
    first = _first_of_group(query[order], group[order])
    distinct = running_count(query[order], first)
    threshold = np.full(queries, -np.inf)
    reached = order[first & (distinct == count)]
    threshold[query[reached]] = _just_below(score[reached])
    mask: npt.NDArray[np.bool_] = score >= threshold[query]
    return mask


def thresholds(
    group: npt.NDArray[np.integer] | None, score: npt.NDArray[np.floating], count: int
) -> npt.NDArray[np.float64]:
    """The score from which on `cut` keeps an entry, (q,), for lists (q, n) sorted by score, descending.

    `group` is None where each entry is its own; -inf says that there are fewer than `count` groups.
    """
    queries, length = score.shape
    if group is None:
        position = np.full(queries, count - 1)
    else:
        order = np.argsort(group, axis=1, kind="stable")
        ordered = np.take_along_axis(group, order, 1)
        first = np.ones(score.shape, np.bool_)
        np.put_along_axis(first, order[:, 1:], ordered[:, 1:] != ordered[:, :-1], 1)
        position = np.sum(np.cumsum(first, axis=1) < count, axis=1)
    reached = position < length
    threshold = np.full(queries, -np.inf)
    threshold[reached] = _just_below(score[reached, position[reached]].astype(np.float64))
    return threshold


def _just_below(score: Floats) -> Floats:
    return score - TOLERANCE * np.maximum(1.0, np.abs(score))


def rank(candidates: Candidates, depth: int, by: By, pool: int, keys: Keys) -> Candidates:
    """The best `depth` competitors of each query, each as its best chunk, in order.

    First the union is cut to the best `pool` competitors by `selection` (what one index over all rows would have
    listed), then ranked by `score`. `pool` is at least `depth`.
    """
    listed = _cut_twice(candidates, depth, by, pool)
    listed = listed[total_order(listed, listed.score, keys)]
    listed = listed[_first_of_group(listed.query, listed.groups(by))]
    return listed[running_count(listed.query, np.ones(len(listed), np.bool_)) <= depth]


def best(candidates: Candidates, depth: int, by: By, pool: int, keys: Keys) -> Candidates:
    """What `rank` lists, with equal scores in any order: keys are read only where the cut goes between equal scores."""
    listed = _cut_twice(candidates, depth, by, pool)
    # Rows of a document are in order: of its equal chunks this takes the one that `rank` takes.
    listed = listed[np.lexsort((listed.row, listed.shard, -listed.score, listed.query))]
    listed = listed[_first_of_group(listed.query, listed.groups(by))]
    position = running_count(listed.query, np.ones(len(listed), np.bool_))
    last = np.full(int(listed.query.max()) + 1 if len(listed) else 0, np.inf)
    last[listed.query[position == depth]] = listed.score[position == depth]
    split = np.unique(listed.query[(position == depth + 1) & (listed.score == last[listed.query])])
    tied = np.flatnonzero((listed.score == last[listed.query]) & np.isin(listed.query, split))
    if len(tied):
        order = np.arange(len(listed))
        order[tied] = tied[total_order(listed[tied], listed.score[tied], keys)]
        listed = listed[order]
    return listed[position <= depth]


def _cut_twice(candidates: Candidates, depth: int, by: By, pool: int) -> Candidates:
    listed = candidates[cut(candidates.query, candidates.groups(by), candidates.selection, pool)]
    # Keys are read where scores tie: not for what cannot be listed anyway.
    return listed[cut(listed.query, listed.groups(by), listed.score, depth)]


def total_order(candidates: Candidates, score: Floats, keys: Keys) -> Ints:
    """Positions in order of query, score descending, doc_id, ordinal; keys are read only where scores tie."""
    order = np.lexsort((candidates.row, candidates.shard, -score, candidates.query))
    same = (np.diff(candidates.query[order]) == 0) & (np.diff(score[order]) == 0)
    if not same.any():
        return order
    member = np.zeros(len(order), np.bool_)
    member[1:] = same
    member[:-1] |= same
    tied = np.flatnonzero(member)
    members = order[tied]
    doc_ids, ordinals = keys(candidates.shard[members], candidates.row[members])
    by_key = sorted(
        range(len(members)),
        key=lambda i: (candidates.query[members[i]], -score[members[i]], doc_ids[i], ordinals[i]),
    )
    order[tied] = members[by_key]
    return order


def _first_of_group(query: Ints, group: Ints) -> npt.NDArray[np.bool_]:
    """Marks, in the given order, the first entry of each (query, group)."""
    first = np.zeros(len(query), np.bool_)
    order = np.lexsort((np.arange(len(query)), group, query))
    if len(order):
        first[order[run_starts(query[order]) | run_starts(group[order])]] = True
    return first


def running_count(query: Ints, counted: npt.NDArray[np.bool_]) -> Ints:
    """For entries sorted by query: how many counted entries the query has up to and including each."""
    total = np.cumsum(counted, dtype=np.int64)
    if not len(query):
        return total
    starts = np.flatnonzero(run_starts(query))
    before = np.zeros(len(starts), np.int64)
    before[1:] = total[starts[1:] - 1]
    counts: Ints = total - np.repeat(before, run_lengths(starts, len(query)))
    return counts


def run_starts(values: Ints) -> npt.NDArray[np.bool_]:
    """Marks, in a sequence of runs (n,) with n > 0, the first entry of each run."""
    starts = np.empty(len(values), np.bool_)
    starts[0] = True
    np.not_equal(values[1:], values[:-1], out=starts[1:])
    return starts


def run_lengths(starts: Ints, end: int) -> Ints:
    """Lengths of runs from where they start and where the last one ends."""
    return np.diff(starts, append=end)
