"""From prepared rows and the hits of their queries to rows with negatives. Pure but for the chunks it asks for.

    retrieval   a row each: the positive, and the negatives beside those that the row had
    qa          the row as it is, then a row without an answer for each negative

Guaranteed: rows keep their order, their source and the numbers that they had in the input, so that no row changes its
split; positive and negatives have one form (see `MineConfig.texts`). A row whose positive is not in the index keeps
its text and gets no negatives where texts are the index's, since the two forms could be told apart. With a reranker a
margin is that to the lowest score of all positives of the query, each in the form of the negatives; one of another row
that has no such form (texts are the index's, and it is not in the index) has no score. Not guaranteed: that what is
near a positive of another row is recognised where the index does not have that one; it is known by a hash.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import numpy.typing as npt

from ray_jobs.corpus.sketch import normalised
from ray_jobs.errors import UsageError
from ray_jobs.index.hits import Hit
from ray_jobs.index.reranking import passage
from ray_jobs.train.data.cleaning import clean
from ray_jobs.train.data.kind import Content, Kind, content_id
from ray_jobs.train.data.kinds import KINDS
from ray_jobs.train.data.mine_config import MineConfig
from ray_jobs.train.data.mining import Candidate, Known, Mined, Rescore, choose, holds_answer
from ray_jobs.train.data.mining_record import NOT_INDEXED, MinedSplit, Scores, rank_name
from ray_jobs.train.data.positives import Place

UNANSWERABLE = "no-answer"
NOT_IN_INDEX = "positive-not-in-index"
QUERY_TOO_LONG = "query-too-long"
BEFORE = "before"
"""Beside a row: the id that it had. Rows that are new have none."""
_KEPT = 1 << 14  # texts: hits of one query are hits of others
Row = Mapping[str, Any]
Fetch = Callable[[Place], list[Hit]]
"""The chunks of a document."""


class Scorer(Protocol):
    """What mining needs of a reranker."""

    def check(self, query: str) -> None:
        """Raise UsageError for a query that no text can be scored against."""
        ...

    def scores(self, query: str, texts: Sequence[str]) -> npt.NDArray[Any]:
        """How well each text answers the query."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """A row, and where all positives of its query lie in the index: its own first."""

    row: Row
    places: Sequence[Sequence[Place]]  # of each positive; empty where it is not in the index
    hashes: AbstractSet[str] = frozenset()  # text_hash of each positive
    others: Sequence[str] = ()  # text of each positive but its own, where a reranker is to see it

    @property
    def query(self) -> str:
        """What is searched."""
        return str(self.row["query"] if "query" in self.row else self.row["question"])

    @property
    def positive(self) -> str:
        """The text of its positive."""
        return str(self.row["positive"] if "positive" in self.row else self.row["passage"])

    def text(self, number: int) -> str | None:
        """The text of the positive of this number; None where it is not at hand."""
        if number == 0:
            return self.positive
        return self.others[number - 1] if number <= len(self.others) else None

    @property
    def answers(self) -> list[str]:
        """What no negative may hold."""
        return list(self.row.get("answers") or ())

    @property
    def has_positive(self) -> bool:
        """Whether its passage answers it."""
        return "answers" not in self.row or bool(self.row["answers"])

    @property
    def chunks(self) -> int:
        """Rows of the index that are of its positives."""
        return sum(place.count for places in self.places for place in places)


@dataclass
class _Made:
    """What has been made so far of a block."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    record: MinedSplit = field(default_factory=MinedSplit)


class RowMiner:
    """Makes rows out of one asked row after another."""

    def __init__(
        self, config: MineConfig, fetch: Fetch, forbidden: AbstractSet[str], reranker: Scorer | None = None
    ) -> None:
        """`forbidden` are documents that no negative may come from."""
        self._config = config
        self._fetch = fetch
        self._forbidden = forbidden
        self._reranker = reranker
        self._kind: Kind = KINDS[config.output_kind]

    def mine(self, asked: Sequence[Asked], found: Sequence[Sequence[Hit]]) -> tuple[list[dict[str, Any]], MinedSplit]:
        """The rows of a block and what became of them; `found` are the hits of each query, best first."""
        made = _Made()
        for one, hits in zip(asked, found, strict=True):
            self._add(made, one, hits)
        return made.rows, made.record

    def _add(self, made: _Made, asked: Asked, hits: Sequence[Hit]) -> None:
        if not asked.has_positive:
            kept = [] if self._config.output_kind == "retrieval" else [self._same(asked)]
            made.rows += kept
            made.record += MinedSplit(rows=1, dropped=1 - len(kept), without={UNANSWERABLE: 1})
            return
        documents = [{place.doc_id for place in places} for places in asked.places]
        own = next((hit for hit in hits if hit.doc_id in documents[0]), None)
        chunks = [[chunk for place in places for chunk in self._fetch(place)] for places in asked.places]
        positive = self._positive(asked, 0, chunks[0], hits)
        mined, scores = self._mined(asked, documents, chunks, positive, hits)
        rows = self._rows(asked, positive, mined, own)
        made.rows += rows
        made.record += MinedSplit(
            rows=1,
            mined=int(bool(mined.negatives)),
            negatives=len(mined.negatives),
            added=len(rows) - 1,
            without={} if mined.without is None else {mined.without: 1},
            skipped=dict(mined.skipped),
            ranks={rank_name(own.rank if own else None) if documents[0] else NOT_INDEXED: 1},
            **_scores(mined, scores),
        )

    def _mined(
        self,
        asked: Asked,
        documents: Sequence[AbstractSet[str]],
        chunks: Sequence[Sequence[Hit]],
        positive: str | None,
        hits: Sequence[Hit],
    ) -> tuple[Mined, float | None]:
        """The negatives, and the lowest score of the positives."""
        if positive is None:
            return Mined((), {}, NOT_IN_INDEX), None
        if not self._takes(asked.query):
            return Mined((), {}, QUERY_TOO_LONG), None
        known = Known(
            documents=frozenset[str]().union(*documents),
            texts=(asked.positive, *(chunk.text for of_one in chunks for chunk in of_one)),
            hashes=asked.hashes,
            answers=asked.answers,
            negatives=list(asked.row.get("negatives") or ()),
            forbidden=self._forbidden,
        )
        candidates = [Candidate(hit.doc_id, _cleaned(hit.text), self._shown(hit), hit.score) for hit in hits]
        lowest = _lowest(documents, hits)
        rescore: Rescore | None = None
        if self._reranker is not None:
            others = [self._positive(asked, number, chunks[number], hits) for number in range(1, len(chunks))]
            rescored: list[float | None] = []
            rescore = self._rescore(asked.query, [positive, *others], rescored)
            mined = choose(candidates, known, self._config, None, str(asked.row["id"]), rescore)
            return mined, rescored[0] if rescored else None
        return choose(candidates, known, self._config, lowest, str(asked.row["id"])), lowest

    def _takes(self, query: str) -> bool:
        """Whether the reranker, if there is one, has room for the query."""
        try:
            if self._reranker is not None:
                self._reranker.check(query)
        except UsageError:
            return False
        return True

    def _rescore(self, query: str, positives: Sequence[str | None], kept: list[float | None]) -> Rescore:
        reranker = self._reranker
        assert reranker is not None, "only asked for with a reranker"
        known = list(dict.fromkeys(text for text in positives if text is not None))

        def rescore(texts: Sequence[str]) -> tuple[Sequence[float], float | None]:
            scores = [float(score) for score in reranker.scores(query, [*known, *texts])]
            kept.append(None if None in positives else min(scores[: len(known)]))
            return scores[len(known) :], kept[0]

        return rescore

    def _positive(self, asked: Asked, number: int, chunks: Sequence[Hit], hits: Sequence[Hit]) -> str | None:
        """The text of a positive in the form of the negatives; None where the index has to give it and does not.

        Of several chunks the one that holds an answer, then the one that the query ranks best, then the one with most
        of the query's words.
        """
        if not self._config.shows_index:
            return asked.text(number)
        if not chunks:
            return None
        ranks = {hit.chunk_id: hit.rank for hit in hits}
        words = set(normalised(asked.query).split())

        def order(place: int) -> tuple[bool, int, int, int]:
            chunk = chunks[place]
            shared = len(words & set(normalised(chunk.text).split()))
            without = not holds_answer(chunk.text, asked.answers)
            return without, ranks.get(chunk.chunk_id, len(hits) + 1), -shared, place

        return self._shown(chunks[min(range(len(chunks)), key=order)])

    def _shown(self, hit: Hit) -> str:
        return _cleaned(passage(hit) if self._config.shows_index else hit.text)

    def _rows(self, asked: Asked, positive: str | None, mined: Mined, own: Hit | None) -> list[dict[str, Any]]:
        if self._config.output_kind == "qa":
            without = [
                {"question": asked.query, "passage": found.shown, "answers": [], "starts": []}
                for found in mined.negatives
            ]
            return [self._same(asked), *(self._row(asked, content) for content in without)]
        row = asked.row
        had, ids = list(row.get("negatives") or ()), list(row.get("negative_ids") or ())
        identity = row.get("positive_id")
        if identity is None and asked.places[0]:
            identity = asked.places[0][0].doc_id if own is None else own.doc_id
        content = {
            "query": asked.query,
            "positive": asked.positive if positive is None else positive,
            "negatives": [*had, *(found.shown for found in mined.negatives)],
            "positive_id": identity,
            "negative_ids": [*ids, *(found.doc_id for found in mined.negatives)] if len(ids) == len(had) else [],
        }
        return [self._own(asked, content)]

    def _same(self, asked: Asked) -> dict[str, Any]:
        return self._own(asked, {name: asked.row[name] for name in ("question", "passage", "answers", "starts")})

    def _own(self, asked: Asked, content: Content) -> dict[str, Any]:
        return {**self._row(asked, content), BEFORE: asked.row["id"]}

    def _row(self, asked: Asked, content: Content) -> dict[str, Any]:
        kept = {name: asked.row[name] for name in ("source", "row", "input")}
        return {"id": content_id(self._kind, content), **kept, **content}


@lru_cache(_KEPT)
def _cleaned(text: str) -> str:
    return clean(text)


def _lowest(documents: Sequence[AbstractSet[str]], hits: Sequence[Hit]) -> float | None:
    """The lowest score of the positives, each by its best hit; None if one is not among the hits."""
    best = [next((hit.score for hit in hits if hit.doc_id in found), None) for found in documents]
    known = [score for score in best if score is not None]
    return min(known) if len(known) == len(best) else None


def _scores(mined: Mined, positive: float | None) -> dict[str, Scores]:
    negatives = [found.score for found in mined.negatives]
    if positive is None:
        return {"negative": Scores.of(negatives)}
    return {
        "positive": Scores.of([positive]),
        "negative": Scores.of(negatives),
        "difference": Scores.of(positive - score for score in negatives),
    }
