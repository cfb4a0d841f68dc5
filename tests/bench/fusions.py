"""Candidate fusions of two rankings, as functions of whole score matrices; for tuning only.

A `Scores` holds, for q queries, dense and lexical scores (q, m) of the documents in the best `depth` of either ranking,
NaN where one ranking does not hold them. A fusion gives fused scores (q, m), -inf for columns that hold no document.
`weight` is the dense one; the lexical weight is 1 - weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Two rankings of the same documents, cut at a depth."""

    dense: Matrix
    lexical: Matrix
    bound: Matrix  # (q, 1), what BM25 can reach at most for each query: the sum of its terms' idf
    document: npt.NDArray[np.int64]  # (q, m), which document each column is

    @property
    def neither(self) -> npt.NDArray[np.bool_]:
        """Documents that no ranking holds."""
        return np.isnan(self.dense) & np.isnan(self.lexical)


Fusion = Callable[[Scores, float], Matrix]


def cut(dense: Matrix, lexical: Matrix, bound: Matrix, depth: int, complete: bool) -> Scores:
    """The best `depth` of each ranking of all documents (q, n).

    `complete` fills in the true score of what only the other one found.
    """
    kept_dense, kept_lexical = _best(dense, depth), _best(lexical, depth) & (lexical > 0)
    either = kept_dense | kept_lexical
    document = np.argsort(~either, axis=1, kind="stable")[:, : int(either.sum(axis=1).max())]
    if complete:
        kept_dense = kept_lexical = either
    return Scores(
        np.take_along_axis(np.where(kept_dense, dense, np.nan), document, 1),
        np.take_along_axis(np.where(kept_lexical, lexical, np.nan), document, 1),
        bound,
        document,
    )


def _best(scores: Matrix, depth: int) -> npt.NDArray[np.bool_]:
    if depth >= scores.shape[1]:
        return np.ones(scores.shape, np.bool_)
    threshold = -np.partition(-scores, depth - 1, axis=1)[:, depth - 1 : depth]
    return scores >= threshold


def _sum(scores: Scores, dense: Matrix, lexical: Matrix, weight: float, missing: float = 0.0) -> Matrix:
    total = weight * np.where(np.isnan(dense), missing, dense)
    total += (1 - weight) * np.where(np.isnan(lexical), missing, lexical)
    return np.where(scores.neither, -np.inf, total)


def _ranks(scores: Matrix) -> Matrix:
    order = np.argsort(np.argsort(-np.where(np.isnan(scores), -np.inf, scores), axis=1, kind="stable"), axis=1)
    return np.where(np.isnan(scores), np.nan, order + 1.0)


def rrf(constant: int) -> Fusion:
    """Weighted reciprocal ranks (Cormack, Clarke and Büttcher, SIGIR 2009)."""

    def fuse(scores: Scores, weight: float) -> Matrix:
        return _sum(scores, 1 / (constant + _ranks(scores.dense)), 1 / (constant + _ranks(scores.lexical)), weight)

    return fuse


def _scaled(scores: Matrix, low: Matrix | float) -> Matrix:
    high = np.nanmax(np.where(np.isnan(scores), -np.inf, scores), axis=1, keepdims=True)
    span = high - low
    return (scores - low) / np.where(span > 0, span, 1.0)


def _low(scores: Matrix) -> Matrix:
    found = np.nanmin(np.where(np.isnan(scores), np.inf, scores), axis=1, keepdims=True)
    return np.where(np.isfinite(found), found, 0.0)


def _filled(scores: Matrix) -> Matrix:
    return np.where(np.isnan(scores), _low(scores), scores)


def minmax(scores: Scores, weight: float) -> Matrix:
    """Each ranking between its last and first score (Lee, SIGIR 1997)."""
    return _sum(
        scores, _scaled(scores.dense, _low(scores.dense)), _scaled(scores.lexical, _low(scores.lexical)), weight
    )


def theoretical(scores: Scores, weight: float) -> Matrix:
    """Between the least score there can be (cosine -1, BM25 0) and the first (Bruch, Gai and Ingber, TOIS 2023)."""
    return _sum(scores, _scaled(scores.dense, -1.0), _scaled(scores.lexical, 0.0), weight)


def floor(scores: Scores, weight: float) -> Matrix:
    """Dense between its last and first score, BM25 between 0 and its first."""
    return _sum(scores, _scaled(scores.dense, _low(scores.dense)), _scaled(scores.lexical, 0.0), weight)


def _standard(scores: Matrix) -> Matrix:
    mean = np.nanmean(scores, axis=1, keepdims=True)
    deviation = np.nanstd(scores, axis=1, keepdims=True)
    standard: Matrix = (scores - mean) / np.where(deviation > 0, deviation, 1.0)
    return standard


def zscore(scores: Scores, weight: float) -> Matrix:
    """Standard scores of each ranking; what is missing gets the ranking's last."""
    dense, lexical = _standard(scores.dense), _standard(scores.lexical)
    return _sum(scores, _filled(dense), _filled(lexical), weight)


def dbsf(scores: Scores, weight: float) -> Matrix:
    """Three standard deviations either side of the mean make 0 to 1 (distribution-based score fusion, as in Qdrant)."""
    return _sum(
        scores,
        np.clip((_standard(scores.dense) + 3) / 6, 0, 1),
        np.clip((_standard(scores.lexical) + 3) / 6, 0, 1),
        weight,
    )


def arctan(scores: Scores, weight: float) -> Matrix:
    """BM25 squashed by 2/pi arctan(s/10), cosine as it is; what is missing gets the ranking's last."""
    return _sum(scores, _filled(scores.dense), 2 / np.pi * np.arctan(scores.lexical / 10), weight)


def bounded(scores: Scores, weight: float) -> Matrix:
    """BM25 as a share of what the query's terms can reach at most, cosine as it is."""
    return _sum(scores, _filled(scores.dense), scores.lexical / np.maximum(scores.bound, 1e-9), weight)


FUSIONS: dict[str, Fusion] = {
    "rrf, constant 60": rrf(60),
    "rrf, constant 20": rrf(20),
    "rrf, constant 5": rrf(5),
    "min-max": minmax,
    "theoretical min-max": theoretical,
    "min-max, lexical from 0": floor,
    "z-score": zscore,
    "dbsf": dbsf,
    "arctan": arctan,
    "bounded BM25": bounded,
}
