"""Measures of a ranking against judgements; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def ndcg(ranked: Sequence[str], grades: Mapping[str, int], k: int = 10) -> float:
    """nDCG@k with linear gains, as trec_eval and BEIR compute it (Järvelin and Kekäläinen, TOIS 2002); 0 to 1."""
    gain = sum(grades.get(doc, 0) / math.log2(place + 2) for place, doc in enumerate(ranked[:k]))
    ideal = sorted(grades.values(), reverse=True)[:k]
    best = sum(grade / math.log2(place + 2) for place, grade in enumerate(ideal))
    return gain / best if best else 0.0


def hit(ranked: Sequence[str], grades: Mapping[str, int], k: int) -> float:
    """1 when one of the first `k` is relevant, else 0."""
    return float(any(grades.get(doc, 0) > 0 for doc in ranked[:k]))


def mean(values: Sequence[float]) -> float:
    """The mean; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0
