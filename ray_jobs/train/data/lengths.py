"""How long rows are: quantiles, a histogram, and what a maximum length would cut.

Guaranteed: exact counts over all rows, not a sample. Quantiles are lengths that occur: the smallest that so many rows
do not exceed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

LIMITS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
_QUANTILES = (0.5, 0.9, 0.95, 0.99)


class Cut(BaseModel):
    """What a maximum length would take away."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_length: int
    rows: int  # longer than it
    share: float  # of the rows
    lost: int  # tokens beyond it
    lost_share: float  # of all tokens


class Lengths(BaseModel):
    """The lengths of one text of every row of a split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    total: int
    mean: float
    shortest: int
    median: int
    p90: int
    p95: int
    p99: int
    longest: int
    histogram: tuple[tuple[int, int], ...]  # (greatest length of the bin, rows), from the first bin with rows
    longer_than: dict[int, int]  # usual limits that some row exceeds: rows
    cut: Cut | None


def measure(lengths: npt.NDArray[np.int32], max_length: int | None) -> Lengths | None:
    """The statistics of `lengths`, one a row; None without rows."""
    if not len(lengths):
        return None
    median, p90, p95, p99 = (int(value) for value in np.quantile(lengths, _QUANTILES, method="inverted_cdf"))
    return Lengths(
        total=int(lengths.sum(dtype=np.int64)),
        mean=round(float(lengths.mean()), 1),
        shortest=int(lengths.min()),
        median=median,
        p90=p90,
        p95=p95,
        p99=p99,
        longest=int(lengths.max()),
        histogram=histogram(lengths),
        longer_than={limit: int((lengths > limit).sum()) for limit in LIMITS if lengths.max() > limit},
        cut=None if max_length is None else _cut(lengths, max_length),
    )


def histogram(lengths: npt.NDArray[np.int32]) -> tuple[tuple[int, int], ...]:
    """Rows in bins whose bounds are powers of two and the middles between them."""
    bounds = [0, 1]
    while bounds[-1] < lengths.max():
        bounds += [3 * bounds[-1] // 2, 2 * bounds[-1]] if bounds[-1] > 1 else [2]
    bins = np.bincount(np.searchsorted(bounds, lengths, side="left"), minlength=len(bounds))
    filled = np.flatnonzero(bins)
    return tuple((bounds[number], int(bins[number])) for number in range(filled[0], filled[-1] + 1))


def _cut(lengths: npt.NDArray[np.int32], max_length: int) -> Cut:
    over = lengths[lengths > max_length].astype(np.int64) - max_length
    total = int(lengths.sum(dtype=np.int64))
    return Cut(
        max_length=max_length,
        rows=len(over),
        share=round(len(over) / len(lengths), 6),
        lost=int(over.sum()),
        lost_share=round(int(over.sum()) / max(1, total), 6),
    )
