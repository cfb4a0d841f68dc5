"""Rows made of hits: which chunk is the positive, what is shown of it, and what the row had before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from ray_jobs.errors import UsageError
from ray_jobs.index.hits import Hit
from ray_jobs.train.data.mine_config import MineConfig
from ray_jobs.train.data.mined_rows import Asked, RowMiner
from ray_jobs.train.data.mining_record import MinedSplit
from ray_jobs.train.data.positives import Place

FIRST = "The gateway keeps no model and hands every request on to the replicas that have one of them loaded."
SECOND = "Its port is 8265 unless the configuration names another one, which it may do for every deployment."
OTHERS = (
    "Postings of one term are kept in ascending order of their rows, so that two lists meet without a table.",
    "A quantiser turns a vector into a few bytes, and for that reason some of its neighbours are missed.",
    "Whoever loses a worker waits at the barrier until the whole group has come up again and goes on.",
)


def hit(doc_id: str, text: str, score: float = 0.0, rank: int = 0, ordinal: int = 0) -> Hit:
    return Hit(
        doc_id=doc_id,
        chunk_id=f"{doc_id}#{ordinal}",
        score=score,
        rank=rank,
        text=text,
        source="s",
        start=0,
        end=len(text),
        title=f"Title of {doc_id}",
        heading="Part > Section",
        page=None,
        page_breaks=(),
        metadata={},
        scores={},
    )


DOCUMENTS: dict[str, list[Hit]] = {
    "right": [hit("right", FIRST), hit("right", SECOND, ordinal=1)],
    "also": [hit("also", "Another document that answers it too, in words of its own and at some length, as they say.")],
}
PLACES = {name: [Place(doc_id=name, shard=0, first=0, count=len(chunks))] for name, chunks in DOCUMENTS.items()}


def found(*names: str) -> list[Hit]:
    """Hits in this order, scores 0.9, 0.8, ...: `right0` is the first chunk of `right`, `other1` the second text."""
    hits = []
    for place, name in enumerate(names):
        document, number = name[:-1], int(name[-1])
        text = OTHERS[number] if document == "other" else DOCUMENTS[document][number].text
        identity = name if document == "other" else document
        hits.append(hit(identity, text, 0.9 - place / 10, place + 1, 0 if document == "other" else number))
    return hits


def retrieval(**more: Any) -> dict[str, Any]:
    given = {"id": "r1", "source": "s", "row": 3, "input": "a.jsonl", "query": "which port", "positive": FIRST}
    return {**given, "negatives": [], "positive_id": "right", "negative_ids": [], **more}


def qa(*answers: str) -> dict[str, Any]:
    row = {"id": "r1", "source": "s", "row": 3, "input": "a.jsonl", "question": "which port"}
    return {**row, "passage": f"{FIRST} {SECOND}", "answers": list(answers), "starts": [0] * len(answers)}


class Scorer:
    """Scores that were written down; refuses long queries."""

    def __init__(self, scores: Mapping[str, float]) -> None:
        self._scores = scores

    def check(self, query: str) -> None:
        if len(query) > 100:
            raise UsageError("query is too long")

    def scores(self, query: str, texts: Sequence[str]) -> np.ndarray:
        return np.array([next(score for end, score in self._scores.items() if text.endswith(end)) for text in texts])


def mine(
    row: dict[str, Any],
    hits: Sequence[Hit],
    positives: Sequence[str] = ("right",),
    scorer: Scorer | None = None,
    others: Sequence[str] = (),
    **settings: Any,
) -> tuple[list[dict[str, Any]], MinedSplit]:
    config = MineConfig.model_validate({"data": "d", "index": "i", "name": "n", "num_negatives": 2, **settings})
    miner = RowMiner(config, lambda place: DOCUMENTS[place.doc_id], frozenset(), scorer)
    return miner.mine([Asked(row, [PLACES.get(name, []) for name in positives], others=others)], [hits])


def test_the_positive_is_the_chunk_that_the_query_ranks_best() -> None:
    ((row,), record) = mine(retrieval(), found("other0", "right1", "right0", "other1"))
    assert row["positive"] == f"Title of right\nPart\nSection\n{SECOND}"
    assert row["negatives"] == [f"Title of other{n}\nPart\nSection\n{OTHERS[n]}" for n in (0, 1)]
    assert (row["positive_id"], row["negative_ids"]) == ("right", ["other0", "other1"])
    assert record.ranks == {"2-3": 1}


def test_the_positive_is_the_chunk_that_holds_the_answer_however_it_ranks() -> None:
    ((row,), _) = mine(qa("8265"), found("right0", "other0", "right1"))
    assert str(row["positive"]).endswith(SECOND)
    ((row,), _) = mine(qa("8265"), found("right0", "other0"))
    assert str(row["positive"]).endswith(SECOND)


def test_a_positive_that_was_not_found_shows_the_chunk_with_the_words_of_the_query() -> None:
    ((row,), record) = mine(retrieval(query="unless the port is named"), found("other0"))
    assert str(row["positive"]).endswith(SECOND)
    assert record.ranks == {"not among the hits": 1}
    assert record.positive.count == 0


def test_as_they_are_given_neither_positive_nor_negatives_have_a_title() -> None:
    ((row,), _) = mine(retrieval(), found("right1", "other0"), texts="data")
    assert (row["positive"], row["negatives"]) == (FIRST, [OTHERS[0]])


def test_what_the_row_had_stays_before_what_is_new() -> None:
    had = retrieval(negatives=[OTHERS[1]], negative_ids=["known"])
    ((row,), _) = mine(had, found("other1", "other0"), texts="data")
    assert (row["negatives"], row["negative_ids"]) == ([OTHERS[1], OTHERS[0]], ["known", "other0"])
    ((row,), _) = mine(retrieval(negatives=["x"]), found("other0"), texts="data")
    assert (row["negatives"], row["negative_ids"]) == (["x", OTHERS[0]], [])
    assert row["id"] != "r1"
    assert (row["source"], row["row"], row["input"]) == ("s", 3, "a.jsonl")


def test_a_margin_is_that_to_the_lowest_of_all_positives_of_the_query() -> None:
    hits = found("right0", "other0", "also0", "other1")
    ((row,), record) = mine(retrieval(), hits, ("right", "also"), absolute_margin=0.0)
    assert row["negative_ids"] == ["other1"]
    assert record.positive.total == pytest.approx(0.7)
    ((row,), record) = mine(retrieval(), found("right0", "other0"), ("right", "also"), absolute_margin=0.0)
    assert (row["negatives"], record.without) == ([], {"positive-not-found": 1})


def test_a_reranker_decides_the_order_and_the_margin() -> None:
    scores = {FIRST: 0.5, OTHERS[0]: 0.7, OTHERS[1]: 0.1, OTHERS[2]: 0.3}
    hits = found("other0", "other1", "right0", "other2")
    ((row,), record) = mine(retrieval(), hits, scorer=Scorer(scores), absolute_margin=0.1)
    assert row["negative_ids"] == ["other2", "other1"]
    assert record.skipped == {"absolute-margin": 1}
    assert record.positive.total == pytest.approx(0.5)
    assert record.difference.total == pytest.approx(0.2 + 0.4)


@pytest.mark.parametrize("settings", [{"texts": "data"}, {"output_kind": "qa"}])
def test_with_a_reranker_each_other_positive_has_the_score_of_its_own_text(settings: dict[str, str]) -> None:
    scores = {FIRST: 0.9, SECOND: 0.9, "Said elsewhere.": 0.3, OTHERS[0]: 0.7, OTHERS[1]: 0.1}
    hits = found("other0", "other1")
    positives, others = ("right", "nowhere"), ["Said elsewhere."]
    row = qa("8265") if "output_kind" in settings else retrieval()
    rows, record = mine(row, hits, positives, Scorer(scores), others, absolute_margin=0.1, **settings)
    assert (record.negatives, record.skipped) == (1, {"absolute-margin": 1})
    assert record.positive.total == pytest.approx(0.3)
    assert OTHERS[1] in rows[-1].get("negatives", [rows[-1].get("passage")])


def test_with_a_reranker_nothing_keeps_a_margin_to_a_positive_without_a_score() -> None:
    scores = Scorer({FIRST: 0.9, OTHERS[0]: 0.1})
    hits = found("right0", "other0")
    ((row,), record) = mine(retrieval(), hits, ("right", "nowhere"), scores, absolute_margin=0.1)
    assert (row["negatives"], record.without) == ([], {"positive-not-found": 1})
    ((row,), record) = mine(retrieval(), hits, ("right", "nowhere"), scores)
    assert (row["negative_ids"], record.positive.count) == (["other0"], 0)


def test_a_query_that_a_reranker_has_no_room_for_gets_none() -> None:
    ((row,), record) = mine(retrieval(query="port " * 50), found("other0"), scorer=Scorer({}))
    assert (row["negatives"], record.without) == ([], {"query-too-long": 1})


def test_a_question_without_answer_is_no_query_and_stays_with_a_reader() -> None:
    assert mine(qa(), found("other0"))[0] == []
    rows, record = mine(qa(), found("other0"), output_kind="qa")
    assert [row["passage"] for row in rows] == [f"{FIRST} {SECOND}"]
    assert (record.without, record.added, record.dropped) == ({"no-answer": 1}, 0, 0)


def test_a_readers_wrong_passages_are_chunks_alone() -> None:
    rows, record = mine(qa("8265"), found("right1", "other0", "right0", "other2"), output_kind="qa")
    assert [(row["passage"], row["answers"]) for row in rows[1:]] == [(OTHERS[0], []), (OTHERS[2], [])]
    assert rows[0] == {**qa("8265"), "id": rows[0]["id"], "before": "r1"}
    assert (record.negatives, record.added) == (2, 2)
