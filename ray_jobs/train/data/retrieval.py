"""A query, a passage that answers it, and passages that do not: `query` or `anchor`, `positive`, `negative`.

A list of positives becomes one row each, with the same negatives; all of them are in the same split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import ClassVar

import pyarrow as pa

from ray_jobs.train.data.kind import Compared, Content, Measured, strings, text_hash
from ray_jobs.train.data.raw_row import RawRow, WrongRowError

_STRINGS = pa.list_(pa.field("element", pa.string(), nullable=False))
_QUERY = ("query", "anchor")
_POSITIVE = ("positive", "positives")
_NEGATIVES = ("negatives", "negative")


class Retrieval:
    """A query with its positive and negative passages."""

    name: ClassVar[str] = "retrieval"
    columns: ClassVar[tuple[pa.Field, ...]] = (
        *strings("query", "positive"),
        pa.field("negatives", _STRINGS, nullable=False),
        pa.field("positive_id", pa.string()),
        pa.field("negative_ids", _STRINGS, nullable=False),
    )
    spellings: ClassVar[frozenset[str]] = frozenset(
        {*_QUERY, *_POSITIVE, *_NEGATIVES, "positive_id", "positive_ids", "negative_id", "negative_ids", "query_id"}
    )
    expected: ClassVar[str] = "query (or anchor), positive, and perhaps negative"
    lengths: ClassVar[tuple[str, ...]] = ("query", "passage")
    leaks_by_asked: ClassVar[bool] = True

    def fits(self, names: AbstractSet[str]) -> bool:
        """Whether there are a query and a positive."""
        return bool(names & set(_QUERY)) and bool(names & set(_POSITIVE))

    def read(self, row: RawRow) -> list[Content]:
        """One row for each positive."""
        query = row.text(*_QUERY).strip()
        positives, negatives = row.texts(*_POSITIVE), row.texts(*_NEGATIVES)
        positive_ids = row.identities("positive_id", "positive_ids")
        negative_ids = row.identities("negative_ids", "negative_id")
        if not positives:
            raise WrongRowError("missing-positive", "there is no 'positive': expected a text or a list of texts")
        if positive_ids and len(positive_ids) != len(positives):
            raise WrongRowError("bad-positive_id", f"{len(positives)} positives have {len(positive_ids)} ids")
        if negative_ids and len(negative_ids) != len(negatives):
            raise WrongRowError("bad-negative_ids", f"{len(negatives)} negatives have {len(negative_ids)} ids")
        if set(positives) & set(negatives) or set(positive_ids) & set(negative_ids):
            raise WrongRowError("negative-is-positive", "a negative is one of the positives")
        ids: Sequence[str | None] = positive_ids or [None] * len(positives)
        shared: Content = {"negatives": negatives, "negative_ids": negative_ids}
        return [
            {"query": query, "positive": positive, "positive_id": identity, **shared}
            for positive, identity in zip(positives, ids, strict=True)
        ]

    def compared(self, content: Content) -> Compared:
        """Asked is the query; the positive is the document.

        Of the negatives counts as much as the positive is long: they tell rows apart, and cannot outweigh it. Else two
        positives of one query, which share their negatives, would be nearly the same.
        """
        positive = content["positive"]
        negatives = "\n".join(content["negatives"])[: len(positive)]
        return Compared(content["query"], f"{positive}\n{negatives}", positive)

    def group(self, content: Content) -> str:
        """By the positive."""
        return f"positive:{content['positive_id'] or text_hash(content['positive'])}"

    def measured(self, content: Content) -> dict[str, tuple[Measured, ...]]:
        """The query, and the passages, since an encoder cuts each by itself."""
        return {"query": (content["query"],), "passage": (content["positive"], *content["negatives"])}


def lists_positives(raw: Mapping[str, object]) -> bool:
    """Whether a raw row has a list of positives."""
    found = RawRow(raw).value(*_POSITIVE)
    return isinstance(found, Sequence) and not isinstance(found, str)
