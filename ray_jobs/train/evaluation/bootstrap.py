"""Before against after on the same rows: the difference and its interval, by the paired percentile bootstrap.

Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13: rows are drawn again with replacement, before
and after of a row together, so that what is hard about a row cancels out.

Guaranteed: a pure function of the scores, the number of draws and the seed; the order of the rows does not matter;
equal scores before and after give exactly 0; the interval holds the difference of the sample. Not guaranteed: coverage
for a handful of rows, where a percentile interval is too narrow, or for rows that depend on each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ray_jobs.errors import UsageError

Floats = NDArray[np.float64]
Average = Literal["mean", "perplexity"]
"""Perplexity is e to the mean of negative log-likelihoods, which are the scores; the weights are tokens."""

LEVEL = 0.95
_CELLS = 4_000_000  # of rows drawn at a time


@dataclass(frozen=True, slots=True)
class Change:
    """What a metric was, what it became, and the interval of the difference."""

    before: float
    after: float
    delta: float
    low: float
    high: float
    rows: int


def change(
    before: Floats,
    after: Floats,
    weights: Floats | None = None,
    *,
    average: Average = "mean",
    draws: int = 1000,
    seed: int = 0,
    level: float = LEVEL,
) -> Change:
    """The change from `before` to `after`, one score a row each, (rows,); rows count as much as their `weights` say.

    Raises UsageError where there is no row, where lengths differ, a score or weight is no number, or a
    perplexity is infinite.
    """
    weights = np.ones(len(before)) if weights is None else weights
    if not len(before) or not len(before) == len(after) == len(weights):
        raise UsageError(
            f"{len(before)} scores before, {len(after)} after and {len(weights)} weights; expected one of each a row, "
            "and one row at least"
        )
    table = np.stack([before, after, weights]).astype(np.float64)
    if not np.isfinite(table).all() or weights.min() < 0 or weights.sum() <= 0:
        raise UsageError("scores and weights are not all finite, or no row counts; expected weights of 0 and more")
    # Sums and draws must not depend on the order in which the rows come.
    table = table[:, np.lexsort(table)]
    finish: Callable[[Floats], Floats] = np.exp if average == "perplexity" else np.positive
    with np.errstate(over="ignore"):
        whole = finish(_averages(table, np.ones((1, table.shape[1]))))[:, 0]
    if not np.isfinite(whole).all():
        raise UsageError(
            f"{average} is {whole[0]:g} before and {whole[1]:g} after: the model has diverged; lower the learning rate"
        )
    delta = float(whole[1] - whole[0])
    drawn = [_differences(table, counts, finish) for counts in _counts(table.shape[1], draws, seed)]
    outside = (1 - level) / 2
    low, high = np.quantile(np.concatenate([*drawn, [delta]]), [outside, 1 - outside])
    return Change(
        before=float(whole[0]),
        after=float(whole[1]),
        delta=delta,
        low=min(float(low), delta),
        high=max(float(high), delta),
        rows=len(before),
    )


def _averages(table: Floats, counts: Floats) -> Floats:
    """Weighted means of before and after in each draw, (2, draws)."""
    weights = table[2]
    totals = counts @ weights
    # A draw may hit only rows that do not count.
    safe = np.where(totals > 0, totals, 1.0)
    means: Floats = np.where(totals > 0, np.stack([counts @ (column * weights) for column in table[:2]]) / safe, np.nan)
    return means


def _differences(table: Floats, counts: Floats, finish: Callable[[Floats], Floats]) -> Floats:
    before, after = finish(_averages(table, counts))
    found: Floats = after - before
    return found[np.isfinite(found)]


def _counts(rows: int, draws: int, seed: int) -> Iterator[Floats]:
    """How often each row is drawn, in pieces of (draws, rows) that fit into memory."""
    chance = np.random.default_rng(seed)
    piece = max(1, _CELLS // rows)
    shares = np.full(rows, 1 / rows)
    for start in range(0, draws, piece):
        yield chance.multinomial(rows, shares, size=min(piece, draws - start)).astype(np.float64)
