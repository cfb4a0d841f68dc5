"""BM25 over the postings of a shard, with statistics of the whole index.

    score(q, d) = sum over t of q:  tf_q(t) * idf(t) * tf / (tf + k1 * (1 - b + b * length / average length))
    idf(t) = ln(1 + (N - df + 0.5) / (df + 0.5))

(Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009; the idf, and leaving out the
constant factor k1 + 1, as in Lucene.)

Guaranteed: with the same statistics a row has the same score to the last bit in whichever shard it lies (terms are
added in sorted order, in float64, element by element), and every row that ties at rank k is returned: merging shards
with any tie-break gives what one shard would give.

Not guaranteed: anything about statistics that do not cover the shard searched (see LexicalStatistics).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    from ray_jobs.index.postings import Postings


@dataclass(frozen=True)
class LexicalStatistics:
    """What BM25 must know of all live rows: add the shards' statistics up before scoring any of them.

    ``document_frequency`` holds the terms it was collected for; scoring takes absent terms as held by no row.
    """

    documents: int = 0
    total_length: int = 0
    document_frequency: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls, postings: Postings, terms: Iterable[str], alive: npt.NDArray[np.bool_] | None = None
    ) -> LexicalStatistics:
        """Statistics of one shard for ``terms``; only rows where ``alive`` (rows,) is true, if given."""
        documents, total_length = postings.total(alive)
        frequencies = {term: postings.document_frequency(term, alive) for term in sorted(set(terms))}
        return cls(documents, total_length, frequencies)

    def __add__(self, other: LexicalStatistics) -> LexicalStatistics:
        return LexicalStatistics(
            self.documents + other.documents,
            self.total_length + other.total_length,
            {
                term: self.document_frequency.get(term, 0) + other.document_frequency.get(term, 0)
                for term in sorted({*self.document_frequency, *other.document_frequency})
            },
        )

    def only(self, terms: Iterable[str]) -> LexicalStatistics:
        """The same for some of the terms."""
        frequencies = {term: self.document_frequency.get(term, 0) for term in sorted(set(terms))}
        return LexicalStatistics(self.documents, self.total_length, frequencies)

    def idf(self, term: str) -> float:
        """Inverse document frequency; positive, largest for a term that no row holds."""
        frequency = self.document_frequency.get(term, 0)
        return math.log(1 + (self.documents - frequency + 0.5) / (frequency + 0.5))


def score(
    postings: Postings,
    terms: Sequence[str],
    statistics: LexicalStatistics,
    allowed: npt.NDArray[np.bool_] | None,
    k: int,
    k1: float = 1.2,
    b: float = 0.75,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The ``k`` best rows for the analysed query ``terms``, plus all that tie with the last of them.

    ``allowed`` (rows,) leaves out dead and filtered rows; None allows all. Rows without any of the terms are never
    returned. Returns rows (n,) and scores (n,), by score descending, then row ascending; n may be below or above k.
    """
    total = np.zeros(postings.row_count, np.float64)
    average_length = max(statistics.total_length, 1) / max(statistics.documents, 1)
    for term, repeats in sorted(Counter(terms).items()):
        rows, frequencies = postings.lookup(term)
        if len(rows) == 0:
            continue
        # Lengths are gathered for the rows of this term alone: a query touches a small part of a shard.
        saturation = postings.lengths[rows] * (k1 * b / average_length) + k1 * (1 - b)
        saturation += frequencies
        total[rows] += (repeats * statistics.idf(term)) * frequencies / saturation
    if allowed is not None:
        total[~allowed] = 0.0
    rows_found = np.flatnonzero(total > 0)
    return _best(rows_found, total[rows_found], k)


def _best(
    rows: npt.NDArray[np.int64], scores: npt.NDArray[np.float64], k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    if k <= 0:
        return rows[:0], scores[:0]
    if len(scores) > k:
        at_least = np.partition(scores, len(scores) - k)[len(scores) - k]
        rows, scores = rows[scores >= at_least], scores[scores >= at_least]
    order = np.argsort(-scores, kind="stable")
    return rows[order], scores[order]
