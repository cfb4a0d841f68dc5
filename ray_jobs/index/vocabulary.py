"""Document frequencies of the commonest terms, of a shard or of many: asked for once, they answer for most queries.

Guaranteed: a frequency that is given is that of all the shards together; `of` tells what is not known from what no row
holds. Not guaranteed: that a term is known, unless the vocabulary is whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


def commonest(postings: Postings, limit: int) -> Vocabulary:
    """The terms of one shard; if there are more than `limit`, those that most rows hold."""
    return Vocabulary(postings.commonest(limit), postings.term_count <= limit)


def together(parts: Sequence[Vocabulary]) -> Vocabulary:
    """The vocabulary of all parts: a term is known if each part knows how many of its rows hold it."""
    total: dict[str, int] = {}
    for part in parts:
        for term, count in part.frequencies.items():
            total[term] = total.get(term, 0) + count
    for part in parts:
        if not part.whole:
            total = {term: count for term, count in total.items() if term in part.frequencies}
    return Vocabulary(total, all(part.whole for part in parts))
