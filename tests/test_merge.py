"""Merging against a reading of its definition, candidate by candidate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.index.fusion import Fusing, fuse
from ray_jobs.index.merge import TOLERANCE, By, Candidates, Ints, best, concatenate, cut, rank, thresholds

Row = tuple[int, int, int, int, float]  # query, shard, row, document, score

rows = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 9), st.integers(0, 5), st.integers(0, 6).map(float)),
    max_size=60,
    unique_by=lambda row: row[:3],
)


def candidates(found: list[Row]) -> Candidates:
    columns = list(zip(*found, strict=True)) or [[]] * 5
    query, shard, row = (np.array(column, np.int64) for column in columns[:3])
    # The document of a row is a function of the row, as it is in a shard.
    return Candidates(query, shard, row, row // 2, np.array(columns[4], float), np.array(columns[4], float))


def keys(shards: Ints, rows: Ints) -> tuple[list[str], list[int]]:
    """Documents are named so that their order is not the order of shards."""
    return [f"{9 - shard}-{row // 2}" for shard, row in zip(shards, rows, strict=True)], [int(row) % 2 for row in rows]


def expected(found: Candidates, depth: int, by_document: bool) -> dict[int, list[tuple[int, int]]]:
    ranked: dict[int, list[tuple[int, int]]] = {}
    names, ordinals = keys(found.shard, found.row)
    order = sorted(range(len(found)), key=lambda i: (-found.score[i], names[i], ordinals[i]))
    seen: set[tuple[int, int, int]] = set()
    for i in order:
        query, shard = int(found.query[i]), int(found.shard[i])
        group = (query, shard, int(found.document[i] if by_document else found.row[i]))
        if group not in seen:
            seen.add(group)
            ranked.setdefault(query, []).append((shard, int(found.row[i])))
    return {query: listed[:depth] for query, listed in ranked.items()}


def listed(ranking: Candidates) -> dict[int, list[tuple[int, int]]]:
    found: dict[int, list[tuple[int, int]]] = {}
    for query, shard, row in zip(ranking.query, ranking.shard, ranking.row, strict=True):
        found.setdefault(int(query), []).append((int(shard), int(row)))
    return found


@given(found=rows, depth=st.integers(1, 8), by_document=st.booleans())
def test_rank_is_a_total_order_and_one_chunk_a_competitor(found: list[Row], depth: int, by_document: bool) -> None:
    union = candidates(found)
    ranking = rank(union, depth, "document" if by_document else "chunk", depth, keys)
    assert listed(ranking) == expected(union, depth, by_document)


@given(found=rows, depth=st.integers(1, 8), by_document=st.booleans())
def test_best_lists_what_rank_lists(found: list[Row], depth: int, by_document: bool) -> None:
    union = candidates(found)
    by: By = "document" if by_document else "chunk"
    ranked, listing = rank(union, depth, by, depth, keys), best(union, depth, by, depth, keys)
    assert {query: set(own) for query, own in listed(ranking=listing).items()} == {
        query: set(own) for query, own in listed(ranking=ranked).items()
    }
    assert listing.score.tolist() == ranked.score.tolist()


def test_best_reads_no_keys_where_the_cut_is_clear() -> None:
    def no_keys(shards: Ints, rows: Ints) -> tuple[list[str], list[int]]:
        raise AssertionError("read keys")

    union = candidates([(0, 0, 0, 0, 5.0), (0, 1, 0, 0, 5.0), (0, 0, 2, 1, 3.0), (0, 1, 2, 1, 3.0), (0, 2, 0, 0, 1.0)])
    assert len(best(union, 4, "document", 4, no_keys)) == 4
    assert len(best(union, 9, "document", 9, no_keys)) == 5
    with pytest.raises(AssertionError, match="read keys"):
        best(union, 3, "document", 3, no_keys)


@given(found=rows, depth=st.integers(1, 8), seed=st.integers(0, 99))
def test_rank_does_not_depend_on_the_order_of_candidates(found: list[Row], depth: int, seed: int) -> None:
    union = candidates(found)
    shuffled = union[np.random.default_rng(seed).permutation(len(union))]
    assert listed(rank(union, depth, "document", depth, keys)) == listed(rank(shuffled, depth, "document", depth, keys))


@given(found=rows, count=st.integers(1, 6))
def test_cut_keeps_the_best_groups_with_all_ties(found: list[Row], count: int) -> None:
    union = candidates(found)
    mask = cut(union.query, union.groups("document"), union.score, count)
    for query in range(3):
        own = union.query == query
        best = sorted(
            {
                int(g): s
                for g, s in sorted(
                    zip(union.groups("document")[own], union.score[own], strict=True), key=lambda p: p[1]
                )
            }.values()
        )
        threshold = best[-count] - TOLERANCE * max(1, abs(best[-count])) if len(best) >= count else -np.inf
        assert (mask[own] == (union.score[own] >= threshold)).all()


@given(dense=rows, lexical=rows, depth=st.integers(1, 8))
def test_reciprocal_rank_fusion_is_its_formula(dense: list[Row], lexical: list[Row], depth: int) -> None:
    rankings = {
        "dense": rank(candidates(dense), 5, "document", 5, keys),
        "lexical": rank(candidates(lexical), 5, "document", 5, keys),
    }
    weights = {"dense": 0.3, "lexical": 0.7}
    fused = fuse(rankings, Fusing("rrf", weights, np.ones(3), False), "document", depth, keys)
    scores: dict[tuple[int, int], float] = {}
    for name, ranking in sorted(rankings.items()):
        position: dict[int, int] = {}
        for query, group in zip(ranking.query.tolist(), ranking.groups("document").tolist(), strict=True):
            position[query] = position.get(query, 0) + 1
            scores[query, group] = scores.get((query, group), 0.0) + weights[name] / (60 + position[query])
    for query in range(3):
        own = fused.candidates.query == query
        best = sorted((score for (q, _), score in scores.items() if q == query), reverse=True)[:depth]
        np.testing.assert_allclose(fused.candidates.score[own], best)


def test_scaled_scores_fuse_to_one_for_the_best_of_both() -> None:
    dense = candidates([(0, 0, 0, 0, 3.0), (0, 0, 2, 1, 1.0)])
    lexical = candidates([(0, 0, 0, 0, 9.0), (0, 0, 4, 2, 5.0)])
    fusing = Fusing("minmax", {"dense": 0.5, "lexical": 0.5}, np.ones(1), False)
    fused = fuse({"dense": dense, "lexical": lexical}, fusing, "document", 5, keys)
    assert fused.candidates.row.tolist() == [0, 2, 4]
    np.testing.assert_allclose(fused.candidates.score, [1.0, 0.0, 0.0])
    np.testing.assert_allclose(fused.scores["lexical"], [9.0, np.nan, 5.0])


def test_nothing_found_merges_to_nothing() -> None:
    empty = concatenate([])
    assert len(rank(empty, 5, "document", 5, keys)) == 0
    fusing = Fusing("bounded", {"dense": 1.0, "lexical": 1.0}, np.ones(1), True)
    fused = fuse({"dense": empty, "lexical": empty}, fusing, "chunk", 5, keys)
    assert len(fused.candidates) == 0


@given(
    scores=st.lists(st.lists(st.integers(0, 5), min_size=6, max_size=6), min_size=1, max_size=4),
    groups=st.lists(st.lists(st.integers(0, 4), min_size=6, max_size=6), min_size=4, max_size=4),
    count=st.integers(1, 7),
    own=st.booleans(),
)
def test_cutting_sorted_lists_is_cutting(
    scores: list[list[int]], groups: list[list[int]], count: int, own: bool
) -> None:
    score = -np.sort(-np.array(scores, float), axis=1)
    group = np.tile(np.arange(6), (len(score), 1)) if own else np.array(groups[: len(score)])
    query = np.repeat(np.arange(len(score)), 6)
    mask = cut(query, group.ravel(), score.ravel(), count)
    threshold = thresholds(None if own else group, score, count)
    assert (score >= threshold[:, None]).ravel().tolist() == mask.tolist()


def test_bounded_scores_are_shares_of_the_bound_and_cosines_with_the_last_for_what_is_missing() -> None:
    dense = candidates([(0, 0, 0, 0, 0.8), (0, 0, 2, 1, 0.5), (1, 0, 6, 3, 0.1)])
    lexical = candidates([(0, 0, 0, 0, 9.0), (0, 0, 4, 2, 6.0)])
    fusing = Fusing("bounded", {"dense": 0.4, "lexical": 0.6}, np.array([12.0, 7.0]), True)
    fused = fuse({"dense": dense, "lexical": lexical}, fusing, "document", 5, keys)
    assert fused.candidates.row.tolist() == [0, 4, 2, 6]
    expected = [0.4 * 0.8 + 0.6 * 0.75, 0.4 * 0.5 + 0.6 * 0.5, 0.4 * 0.5, 0.4 * 0.1]
    np.testing.assert_allclose(fused.candidates.score, expected)


def test_bounded_fusion_scales_what_is_not_a_cosine() -> None:
    dense = candidates([(0, 0, 0, 0, 30.0), (0, 0, 2, 1, 10.0)])
    fusing = Fusing("bounded", {"dense": 0.4, "lexical": 0.6}, np.ones(1), False)
    fused = fuse({"dense": dense, "lexical": concatenate([])}, fusing, "document", 5, keys)
    np.testing.assert_allclose(fused.candidates.score, [0.4, 0.0])
