from __future__ import annotations

import math
from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.index.lexical import LexicalStatistics, score
from ray_jobs.index.postings import Postings, write_postings

VOCABULARY = list("abcdefgh")
DOCUMENTS = st.lists(st.lists(st.sampled_from(VOCABULARY), max_size=8), min_size=1, max_size=40)
QUERY = st.lists(st.sampled_from([*VOCABULARY, "absent"]), max_size=6)


def opened(tmp_path_factory: pytest.TempPathFactory, documents: list[list[str]]) -> Postings:
    folder = tmp_path_factory.mktemp("postings")
    write_postings(folder, documents)
    return Postings.open(folder)


def bm25(documents: list[list[str]], query: list[str], k1: float = 1.2, b: float = 0.75) -> list[float]:
    """The formula written out row by row."""
    average = sum(map(len, documents)) / len(documents)
    scores = []
    for terms in documents:
        total = 0.0
        for term in query:
            frequency, held_by = terms.count(term), sum(term in other for other in documents)
            idf = math.log(1 + (len(documents) - held_by + 0.5) / (held_by + 0.5))
            if frequency:
                total += idf * frequency / (frequency + k1 * (1 - b + b * len(terms) / average))
        scores.append(total)
    return scores


@settings(deadline=None)  # files are written: a loaded disk is no failure
@given(DOCUMENTS, QUERY)
def test_scores_are_bm25(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[str]], query: list[str]
) -> None:
    postings = opened(tmp_path_factory, documents)
    rows, scores = score(postings, query, LexicalStatistics.of(postings, query), None, len(documents))
    expected = bm25(documents, query)
    assert sorted(rows.tolist()) == [row for row, value in enumerate(expected) if value > 0]
    np.testing.assert_allclose(scores, [expected[row] for row in rows], rtol=1e-12)
    assert (np.diff(scores) <= 0).all()


@settings(deadline=None)  # files are written: a loaded disk is no failure
@given(DOCUMENTS, QUERY, st.integers(1, 16), st.integers(1, 12), st.randoms())
def test_sharding_changes_no_score_and_no_rank_ties_included(
    tmp_path_factory: pytest.TempPathFactory,
    documents: list[list[str]],
    query: list[str],
    shards: int,
    k: int,
    random: Random,
) -> None:
    whole = opened(tmp_path_factory, documents)
    allowed = np.array([random.random() < 0.8 for _ in documents], np.bool_)
    statistics = LexicalStatistics.of(whole, query)
    rows, scores = score(whole, query, statistics, allowed, k)
    single = sorted(zip((-scores).tolist(), rows.tolist(), strict=True))[:k]

    members = [[row for row in range(len(documents)) if row % shards == shard] for shard in range(shards)]
    random.shuffle(members)
    parts = [opened(tmp_path_factory, [documents[row] for row in rows]) for rows in members]
    merged_statistics = sum((LexicalStatistics.of(part, query) for part in parts), LexicalStatistics())
    merged = []
    for part, of_shard in zip(parts, members, strict=True):
        rows, scores = score(part, query, merged_statistics, allowed[of_shard], k)
        merged += [(-value, of_shard[row]) for row, value in zip(rows.tolist(), scores.tolist(), strict=True)]

    assert merged_statistics == statistics
    assert sorted(merged)[:k] == single


@settings(deadline=None)  # files are written: a loaded disk is no failure
@given(DOCUMENTS, QUERY, st.integers(1, 10))
def test_all_rows_that_tie_with_the_last_are_returned(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[str]], query: list[str], k: int
) -> None:
    postings = opened(tmp_path_factory, documents)
    statistics = LexicalStatistics.of(postings, query)
    rows, scores = score(postings, query, statistics, None, k)
    all_rows, all_scores = score(postings, query, statistics, None, len(documents))
    kept = all_scores >= all_scores[k - 1] if len(all_scores) >= k else all_scores > 0
    assert (rows.tolist(), scores.tolist()) == (all_rows[kept].tolist(), all_scores[kept].tolist())


@settings(deadline=None)  # files are written: a loaded disk is no failure
@given(DOCUMENTS, QUERY, st.randoms())
def test_deleting_rows_scores_as_if_they_had_never_been(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[str]], query: list[str], random: Random
) -> None:
    alive = np.array([random.random() < 0.6 for _ in documents], np.bool_)
    kept = np.flatnonzero(alive)
    full = opened(tmp_path_factory, documents)
    rows, scores = score(full, query, LexicalStatistics.of(full, query, alive), alive, 10)
    rebuilt = opened(tmp_path_factory, [documents[row] for row in kept])
    rows_rebuilt, scores_rebuilt = score(rebuilt, query, LexicalStatistics.of(rebuilt, query), None, 10)
    assert (rows.tolist(), scores.tolist()) == (kept[rows_rebuilt].tolist(), scores_rebuilt.tolist())


@settings(deadline=None)  # files are written: a loaded disk is no failure
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 99), st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)))
    )
)
def test_statistics_add_up_in_any_order(parts: list[tuple[int, int, dict[str, int]]]) -> None:
    statistics = [LexicalStatistics(*part) for part in parts]
    forwards = sum(statistics, LexicalStatistics())
    backwards = sum(reversed(statistics), LexicalStatistics())
    counted: Counter[str] = Counter()
    for _, _, frequencies in parts:
        counted.update(frequencies)
    assert forwards == backwards
    assert forwards.document_frequency == dict(counted)


def test_a_query_without_known_terms_finds_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    postings = opened(tmp_path_factory, [["a"], []])
    rows, scores = score(postings, ["absent"], LexicalStatistics.of(postings, ["absent"]), None, 5)
    assert len(rows) == len(scores) == 0
