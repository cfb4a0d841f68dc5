"""Document frequencies of the commonest terms, of a shard or of many: asked for once, they answer for most queries.

Guaranteed: a frequency that is given is that of all the shards together; `of` tells what is not known from what no row
holds; no vocabulary has more terms than its limit. Not guaranteed: that a term is known, unless the vocabulary is
whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ray_jobs.index.postings import Postings


@dataclass(frozen=True)
class Vocabulary:
    """Terms and the number of rows that hold each."""

    frequencies: Mapping[str, int]
    whole: bool  # no row holds any other term

    def of(self, term: str) -> int | None:
        """The document frequency of `term`; None when it is not known."""
        return self.frequencies.get(term, 0 if self.whole else None)


NOTHING_KNOWN = Vocabulary({}, whole=False)


def commonest(postings: Postings, limit: int, alive: npt.NDArray[np.bool_] | None = None) -> Vocabulary:
    """The terms of one shard; if there are more than `limit`, those that most rows hold, of which `alive` (rows,)."""
    return Vocabulary(postings.commonest(limit, alive), postings.term_count <= limit)


def together(parts: Sequence[Vocabulary], limit: int) -> Vocabulary:
    """The vocabulary of all parts; of more than `limit` terms, those that most rows hold.

    A term is known if each part knows how many of its rows hold it. At most 2 `limit` terms are held at a time.
    """
    total = Vocabulary({}, whole=True)
    for part in parts:
        total = _cut(_sum(total, part), limit)
    return total


def _sum(first: Vocabulary, second: Vocabulary) -> Vocabulary:
    counts: dict[str, int] = {}
    for term in first.frequencies.keys() | second.frequencies.keys():
        one, other = first.of(term), second.of(term)
        if one is not None and other is not None:
            counts[term] = one + other
    return Vocabulary(counts, first.whole and second.whole)


def _cut(vocabulary: Vocabulary, limit: int) -> Vocabulary:
    if len(vocabulary.frequencies) <= limit:
        return vocabulary
    kept = sorted(vocabulary.frequencies.items(), key=lambda item: (-item[1], item[0]))[:limit]
    return Vocabulary(dict(kept), whole=False)
