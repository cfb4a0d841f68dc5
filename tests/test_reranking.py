"""Reordering hits by scores, and a fitted reranker that raises the right document."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_index import SmallDocument, VectorEmbedder, build_index
from tiny_rerankers import fitted_to_words

from ray_jobs.errors import ModelError
from ray_jobs.index.hits import Hit
from ray_jobs.index.manifest import commit
from ray_jobs.index.reranking import Reranking, cut, passage, reranked, wider
from ray_jobs.index.search import Mode, SearchConfig
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.models.reranker import Reranker, RerankerConfig
from ray_jobs.storage import LocalStorage


def hit(rank: int, doc_id: str = "d", *, text: str = "text", title: str = "", heading: str = "") -> Hit:
    return Hit(
        doc_id=doc_id,
        chunk_id=f"{doc_id}#{rank}",
        score=1 / rank,
        rank=rank,
        text=text,
        source="s",
        start=0,
        end=len(text),
        title=title,
        heading=heading,
        page=None,
        page_breaks=[],
        metadata={"year": 2020},
        scores={"dense": 1 / rank},
    )


FOUND = st.lists(
    st.tuples(st.sampled_from("abcde"), st.sampled_from([-1.0, 0.0, 0.5, 2.0]) | st.floats(allow_nan=False)),
    max_size=20,
)
LIKELY = st.lists(st.tuples(st.sampled_from("abcde"), st.floats(0, 1)), max_size=20)


@given(FOUND, st.integers(1, 25))
def test_chunks_come_by_score_and_those_of_equal_score_by_their_former_rank(
    found: list[tuple[str, float]], k: int
) -> None:
    hits = [hit(rank, doc_id) for rank, (doc_id, _) in enumerate(found, start=1)]
    result = reranked(hits, [score for _, score in found], SearchConfig(k=k, by="chunk"))
    former = [int(item.chunk_id.split("#")[1]) for item in result]
    keys = [(-item.score, rank) for item, rank in zip(result, former, strict=True)]
    assert keys == sorted((-score, rank) for rank, (_, score) in enumerate(found, start=1))[:k]
    assert [item.rank for item in result] == list(range(1, len(result) + 1))


@given(FOUND | LIKELY, st.floats(0.01, 0.99))
def test_a_blend_lies_between_both_orders(found: list[tuple[str, float]], weight: float) -> None:
    hits = [hit(rank, doc_id) for rank, (doc_id, _) in enumerate(found, start=1)]
    scores = [score for _, score in found]
    result = reranked(hits, scores, SearchConfig(k=25, by="chunk"), weight)
    place = {item.chunk_id: item for item in result}
    assert all(0 <= item.score <= 1 for item in result)
    for first, own in zip(hits, scores, strict=True):
        assert place[first.chunk_id].scores["rerank"] == own
        for second, other in zip(hits, scores, strict=True):
            if first.rank < second.rank and own >= other:
                assert place[first.chunk_id].rank < place[second.chunk_id].rank


def test_a_blend_weighs_scores_that_are_scaled_over_the_hits() -> None:
    hits = [hit(1, "a"), hit(2, "b"), hit(4, "c")]  # of retrieval 1, 1/2, 1/4: scaled 1, 1/3, 0
    result = reranked(hits, [-10.0, 5.0, 10.0], SearchConfig(k=3, by="chunk"), 0.4)
    assert [(item.doc_id, round(item.score, 6)) for item in result] == [("a", 0.6), ("b", 0.5), ("c", 0.4)]


def test_a_blend_weighs_the_log_odds_of_probabilities_alike_for_every_query() -> None:
    hits = [hit(1, "a"), hit(2, "b"), hit(4, "c")]  # of retrieval 1, 1/2, 1/4: scaled 1, 1/3, 0
    told = [0.5, 0.9, 0.9999]  # log-odds 0, 2.1972, 9.2102: of 12, from -6 on, 0.5, 0.6831, 1
    result = reranked(hits, told, SearchConfig(k=3, by="chunk"), 0.8)
    assert [(item.doc_id, round(item.score, 4)) for item in result] == [("c", 0.8), ("b", 0.6131), ("a", 0.6)]
    assert [item.scores["rerank"] for item in result] == [0.9999, 0.9, 0.5]


def test_a_blend_with_a_reranker_that_is_sure_of_nothing_keeps_the_order_of_retrieval() -> None:
    hits = [hit(1, "a"), hit(2, "b"), hit(4, "c")]
    result = reranked(hits, [0.5, 0.51, 0.52], SearchConfig(k=3, by="chunk"), 0.8)
    assert [item.doc_id for item in result] == ["a", "b", "c"]


def test_a_blend_of_probabilities_0_and_1_is_finite() -> None:
    result = reranked([hit(1, "a"), hit(2, "b")], [0.0, 1.0], SearchConfig(k=2, by="chunk"), 0.6)
    assert [(item.doc_id, round(item.score, 6)) for item in result] == [("b", 0.6), ("a", 0.4)]


@given(FOUND, st.integers(1, 25))
def test_a_document_scores_as_its_best_chunk(found: list[tuple[str, float]], k: int) -> None:
    hits = [hit(rank, doc_id) for rank, (doc_id, _) in enumerate(found, start=1)]
    scores = [score for _, score in found]
    by_chunk = reranked(hits, scores, SearchConfig(k=100, by="chunk"))
    first_of_each = list({item.doc_id: item.chunk_id for item in reversed(by_chunk)}.values())
    expected = [item.chunk_id for item in by_chunk if item.chunk_id in first_of_each][:k]
    result = reranked(hits, scores, SearchConfig(k=k, by="document"))
    assert [item.chunk_id for item in result] == expected
    assert [item.rank for item in result] == list(range(1, len(result) + 1))


@given(FOUND, st.permutations(range(20)))
def test_the_order_in_which_hits_are_given_does_not_matter(found: list[tuple[str, float]], order: list[int]) -> None:
    pairs = [(hit(rank, doc_id), score) for rank, (doc_id, score) in enumerate(found, start=1)]
    shuffled = [pairs[i] for i in order if i < len(pairs)]
    config = SearchConfig(k=100)
    assert reranked([h for h, _ in shuffled], [s for _, s in shuffled], config) == reranked(
        [h for h, _ in pairs], [s for _, s in pairs], config
    )


def test_a_hit_keeps_everything_but_rank_and_score_and_says_what_the_reranker_gave() -> None:
    before = [hit(1, "a"), hit(2, "b")]
    after = reranked(before, [0.25, 0.75], SearchConfig(k=1))
    (only,) = after
    assert only.scores == {"dense": 0.5, "rerank": 0.75}
    assert (only.rank, only.score) == (1, 0.75)
    assert {**only.to_dict(), "rank": 2, "score": 0.5, "scores": {"dense": 0.5}} == before[1].to_dict()
    assert before[1].scores == {"dense": 0.5}


def test_another_number_of_scores_than_hits_is_refused() -> None:
    with pytest.raises(ModelError, match="2 scores for 1 hits"):
        reranked([hit(1)], [1.0, 2.0], SearchConfig())


def test_nan_is_refused_as_a_score() -> None:
    with pytest.raises(ModelError, match="NaN"):
        reranked([hit(1), hit(2)], [1.0, float("nan")], SearchConfig())


def test_no_hit_gives_no_hit() -> None:
    assert reranked([], [], SearchConfig()) == []


@given(st.lists(st.sampled_from("abcde"), max_size=20), st.integers(1, 8))
def test_hits_that_were_not_reranked_keep_their_order_and_are_cut_to_what_was_asked_for(
    docs: list[str], k: int
) -> None:
    hits = [hit(rank, doc_id) for rank, doc_id in enumerate(docs, start=1)]
    assert cut(hits, SearchConfig(k=k, by="chunk")) == hits[:k]
    documents = cut(hits, SearchConfig(k=k, by="document"))
    assert [item.doc_id for item in documents] == list(dict.fromkeys(docs))[:k]
    assert [item.chunk_id for item in documents] == [f"{d}#{docs.index(d) + 1}" for d in dict.fromkeys(docs)][:k]
    assert [item.rank for item in documents] == list(range(1, len(documents) + 1))


@pytest.mark.parametrize("mode", ["dense", "lexical"])
def test_retrieved_wider_and_cut_the_hits_are_those_of_the_search_asked_for(snapshot: Snapshot, mode: Mode) -> None:
    config, embedder = SearchConfig(k=3, mode=mode), VectorEmbedder(1)
    query = "1" if mode == "dense" else "yak bread kale"
    (plain,), (candidates,) = (snapshot.search([query], asked, embedder) for asked in (config, wider(config, 10)))
    assert cut(candidates, config) == plain


def test_more_chunks_are_retrieved_than_asked_for_and_nothing_else_changes() -> None:
    config = SearchConfig(k=7, by="document", mode="lexical", where="year = 2020", nprobe=3)
    assert wider(config, 50) == config.model_copy(update={"k": 50, "by": "chunk"})
    assert wider(config, 5).k == 7


@pytest.mark.parametrize(
    ("found", "seen"),
    [
        (hit(1, text="It scales."), "It scales."),
        (hit(1, text="It scales.", title="Serve"), "Serve\nIt scales."),
        (hit(1, text="It scales.", title="Serve", heading="Serve > Scaling"), "Serve\nScaling\nIt scales."),
        (hit(1, text="# Scaling\nIt scales.", title="Serve", heading="Scaling"), "Serve\n# Scaling\nIt scales."),
        (hit(1, text="It scales.", title="t" * 1000), "t" * 400 + "\nIt scales."),
    ],
)
def test_the_reranker_sees_title_and_headings_that_the_text_does_not_show(found: Hit, seen: str) -> None:
    assert passage(found) == seen


DOCUMENTS = {
    "first": "bread cheese date lemon mint olive",
    "second": "cat bread cheese grape kale nut",
    "third": "honey owl jam ice fig egg",
    "right": "kale cat ice owl fox lemon",
    "last": "zebra yak wasp vole urchin toad",
}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    """A cross-encoder that learned to count the words that a text shares with the query."""
    path = fitted_to_words(tmp_path_factory.getbasetemp())
    return Reranker.load(RerankerConfig(model=str(path), precision="float32", device="cpu"))


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """An index whose vectors put the documents in the order of DOCUMENTS, whatever they say."""
    folder = tmp_path_factory.mktemp("index")
    documents = [
        SmallDocument(doc_id, [("zebra yak wasp vole urchin toad", [9.0 - rank]), (text, [10.0 - rank])])
        for rank, (doc_id, text) in enumerate(DOCUMENTS.items())
    ]
    storage = LocalStorage(folder / "store")
    commit(storage, build_index(storage, folder / "build", documents, 2))
    return Snapshot.open(storage, "small")


def test_reranking_raises_the_right_document(fitted: Reranker, snapshot: Snapshot) -> None:
    query, config, embedder = "cat owl fox", SearchConfig(k=2, mode="dense"), VectorEmbedder(1)
    reranking = Reranking(fitted, depth=10)
    (before,) = snapshot.search(["1"], config, embedder)
    (candidates,) = snapshot.search(["1"], reranking.wider(config), embedder)
    after = reranking.apply(query, candidates, config)
    assert [item.doc_id for item in before] == ["first", "second"]
    assert after[0].doc_id == "right"
    assert after[0].text == DOCUMENTS["right"]
    assert len({item.doc_id for item in after}) == len(after) == 2
    assert after[0].scores.keys() == {"dense", "rerank"}
