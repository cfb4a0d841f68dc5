"""The rules against false negatives: what they let through is never a positive, whatever was found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ray_jobs.models.reader_metrics import normalised
from ray_jobs.train.data.mining import Candidate, Known, MiningRules, choose, holds_answer, near
from ray_jobs.train.data.mining_record import MinedSplit, Scores, rank_name, rank_names

PASSAGES = (
    "The manifest names every shard of a snapshot, and its creation is the commit that readers see.",
    "A gateway has no model of its own and sends a request on to the replicas that have one.",
    "Postings of a term are kept in ascending order, so that two lists meet without a hash table.",
    "An embedder reads at most so many tokens of a text, and what comes after them is cut.",
    "When a worker is lost, the others wait for it at the barrier until the run starts again.",
    "A quantiser turns a vector into a few bytes, which is why some of its neighbours are missed.",
)


def hits(scores: list[float], texts: tuple[str, ...] = PASSAGES) -> list[Candidate]:
    """Hits of distinct documents, best first."""
    ordered = sorted(scores, reverse=True)
    return [
        Candidate(f"d{n}", f"{texts[n % len(texts)]} Take {n} of many, {n * 7}.", f"shown {n}", score)
        for n, score in enumerate(ordered)
    ]


def pick(
    found: list[Candidate], known: Known | None = None, positive: float | None = 1.0, **rules: object
) -> list[str]:
    chosen = MiningRules.model_validate(rules)
    return [one.doc_id for one in choose(found, known or Known(), chosen, positive, "row").negatives]


SCORES = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=25)


@given(
    scores=SCORES,
    positives=st.frozensets(st.integers(0, 24)),
    forbidden=st.frozensets(st.integers(0, 24)),
    positive=st.floats(-20, 20, width=32),
    absolute=st.none() | st.floats(0, 5),
    relative=st.none() | st.floats(0, 1),
    highest=st.none() | st.floats(0, 20),
    lowest=st.none() | st.floats(-20, 0),
    count=st.integers(1, 5),
    skip=st.integers(0, 3),
    depth=st.integers(8, 30),
    sampling=st.sampled_from(["top", "random"]),
    rescored=st.booleans(),
)
def test_every_negative_keeps_to_every_rule(
    scores: list[float],
    positives: frozenset[int],
    forbidden: frozenset[int],
    positive: float,
    absolute: float | None,
    relative: float | None,
    highest: float | None,
    lowest: float | None,
    count: int,
    skip: int,
    depth: int,
    sampling: str,
    rescored: bool,
) -> None:
    found = hits(scores)
    known = Known(frozenset(f"d{n}" for n in positives), forbidden=frozenset(f"d{n}" for n in forbidden))
    rules = MiningRules.model_validate(
        {
            "num_negatives": count,
            "range_min": skip,
            "range_max": depth,
            "absolute_margin": absolute,
            "relative_margin": relative,
            "max_score": highest,
            "min_score": lowest,
            "sampling_strategy": sampling,
        }
    )
    again = {one.shown: -one.score for one in found}

    def rescore(texts: object) -> tuple[list[float], float]:
        return [again[text] for text in texts], positive  # type: ignore[attr-defined]

    mined = choose(found, known, rules, positive, "row", rescore if rescored else None)
    own = {one.doc_id: again[one.shown] if rescored else one.score for one in found}
    looked_at = [one.doc_id for one in found if one.doc_id not in known.documents][:depth]
    right = [
        name
        for name in sorted(looked_at, key=lambda name: -own[name])
        if name not in known.forbidden
        and (absolute is None or own[name] <= positive - absolute)
        and (relative is None or own[name] <= positive - abs(positive) * relative)
        and (highest is None or own[name] <= highest)
        and (lowest is None or own[name] >= lowest)
    ]
    negatives = [one.doc_id for one in mined.negatives]
    assert len(negatives) == len(set(negatives)) == min(count, max(0, len(right) - skip))
    assert set(negatives) <= set(right)
    if sampling == "top":
        assert [own[name] for name in negatives] == [own[name] for name in right[skip : skip + count]]
    assert [one.score for one in mined.negatives] == sorted((own[name] for name in negatives), reverse=True)
    assert (mined.without is None) == bool(negatives)


@given(SCORES, st.integers(0, 3))
def test_random_sampling_is_that_of_seed_and_row(scores: list[float], seed: int) -> None:
    found = hits(scores)
    rules = MiningRules(sampling_strategy="random", num_negatives=3, seed=seed)
    assert choose(found, Known(), rules, None, "a") == choose(found, Known(), rules, None, "a")


def test_rows_are_sampled_differently() -> None:
    found = hits([float(n) for n in range(40)])
    rules = MiningRules(sampling_strategy="random", num_negatives=3)
    assert len({choose(found, Known(), rules, None, row).negatives for row in "abcdefgh"}) > 4


@pytest.mark.parametrize(
    "text",
    [
        PASSAGES[0],
        PASSAGES[0].upper().replace(" ", "\n "),
        PASSAGES[0][10:70],
        f"What the manual says: {PASSAGES[0]} And more, which is about something else entirely, at some length.",
        PASSAGES[0].replace("every shard", "each shard"),
    ],
)
def test_what_says_the_same_as_a_positive_is_no_negative(text: str) -> None:
    found = [Candidate("copy", text, text, 0.9), Candidate("other", PASSAGES[1], PASSAGES[1], 0.5)]
    assert pick(found, Known(texts=(PASSAGES[0],))) == ["other"]


def test_a_short_text_may_stand_in_a_long_one() -> None:
    assert not near("Yes", f"Yes, {PASSAGES[0]}", 0.8)


def test_a_positive_whose_text_is_not_at_hand_is_known_by_its_hash() -> None:
    from ray_jobs.train.data.kind import text_hash

    found = [Candidate("copy", PASSAGES[0], "a", 0.9), Candidate("other", PASSAGES[1], "b", 0.5)]
    assert pick(found, Known(hashes={text_hash(PASSAGES[0].upper())})) == ["other"]


@pytest.mark.parametrize(
    ("text", "answers", "held"),
    [
        ("It was the 4th of May.", ["4th of May"], True),
        ("It was the\n4TH OF  MAY!", ["The 4th of May,"], True),
        ("In 14th century", ["4th"], False),
        ("Nothing of the kind.", ["the"], False),
        ("Nothing of the kind.", [], False),
        ("One or two.", ["three", "two"], True),
    ],
)
def test_a_passage_with_an_answer_is_no_negative(text: str, answers: list[str], held: bool) -> None:
    assert holds_answer(text, answers) == held
    found = [Candidate("d", text, text, 0.9)]
    assert pick(found, Known(answers=answers)) == ([] if held else ["d"])


@given(st.text(min_size=1, max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_an_answer_between_words_is_always_found(answer: str, before: str, after: str) -> None:
    assert holds_answer(f"{before} | {answer} | {after}", [answer]) or not normalised(answer)


def test_one_text_is_taken_once_and_not_if_it_is_there_already() -> None:
    found = [Candidate(f"d{n}", PASSAGES[n // 2], PASSAGES[n // 2], 1 - n / 10) for n in range(6)]
    assert pick(found, Known(negatives=(PASSAGES[1].lower(),))) == ["d0", "d4"]


def test_no_margin_is_kept_to_where_the_positive_was_not_found() -> None:
    mined = choose(hits([0.5, 0.4]), Known(), MiningRules(absolute_margin=0.0), None, "row")
    assert (mined.negatives, mined.without) == ((), "positive-not-found")


def test_why_there_are_none_is_the_rule_that_took_most() -> None:
    mined = choose(hits([0.9, 0.8, 0.1]), Known(), MiningRules(max_score=0.5, min_score=0.2), None, "row")
    assert mined.without == "max-score"
    assert mined.skipped == {"max-score": 2, "min-score": 1}
    assert choose([], Known(), MiningRules(), None, "row").without == "no-hits"
    assert choose(hits([1.0]), Known(), MiningRules(range_min=1), None, "row").without == "range-min"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"range_min": 48, "range_max": 50, "num_negatives": 4}, "only 2 hits are left"),
        ({"range_min": 60, "range_max": 50}, "only 0 hits are left"),
        ({"min_score": 2, "max_score": 1}, "swap them"),
        ({"num_negatives": 0}, "greater than or equal to 1"),
        ({"margin": 1}, "Extra inputs"),
    ],
)
def test_rules_that_let_nothing_through_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MiningRules.model_validate(settings)


@given(st.lists(st.lists(st.floats(-5, 5), max_size=4), max_size=5))
def test_scores_of_parts_add_up_to_those_of_all(parts: list[list[float]]) -> None:
    total = sum((MinedSplit(rows=1, positive=Scores.of(part)) for part in parts), MinedSplit())
    whole = Scores.of(value for part in parts for value in part)
    assert total.rows == len(parts)
    assert total.positive.model_dump() == pytest.approx(whole.model_dump())


@given(st.none() | st.integers(1, 20_000))
def test_every_rank_has_a_bin(rank: int | None) -> None:
    assert rank_name(rank) in rank_names()
