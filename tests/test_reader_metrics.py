"""SQuAD's measures, and the threshold that keeps right answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.models.reader_evaluation import KEPT, ReaderQuality, Reading, judge
from ray_jobs.models.reader_metrics import exact_match, f1, normalised, share_below, threshold_that_keeps
from ray_jobs.models.reader_spans import PassageSpan

margins = st.lists(st.floats(-50, 50), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("answer", "compared"),
    [
        ("The  Cat's\tpaw", "cats paw"),
        ("an Apple a day, the end.", "apple day end"),
        ("Theory of another", "theory of another"),
        ("U.S.A.", "usa"),
        ("a", ""),
        ("“a”", "“ ”"),
        ("", ""),
    ],
)
def test_answers_are_compared_without_case_punctuation_articles_and_spaces(answer: str, compared: str) -> None:
    assert normalised(answer) == compared


@pytest.mark.parametrize(
    ("said", "answers", "match", "shared"),
    [
        ("the Eiffel Tower", ["Eiffel tower."], 1, 1),
        ("Eiffel Tower in Paris", ["Eiffel tower", "Paris"], 0, 2 / 3),
        ("tower tower", ["tower"], 0, 2 / 3),
        ("London", ["Paris"], 0, 0),
        ("", ["Paris"], 0, 0),
        ("", [], 1, 1),
        ("Paris", [], 0, 0),
        ("the", ["a"], 1, 1),
        ("the", ["Paris"], 0, 0),
    ],
)
def test_the_nearest_right_answer_counts(said: str, answers: list[str], match: float, shared: float) -> None:
    assert exact_match(said, answers) == match
    assert f1(said, answers) == pytest.approx(shared)


@given(st.text(max_size=30), st.lists(st.text(max_size=30), max_size=3))
def test_f1_is_a_share_and_never_below_an_exact_match(said: str, answers: list[str]) -> None:
    assert 0 <= exact_match(said, answers) <= f1(said, answers) <= 1


@given(margins, st.floats(0.01, 1))
def test_the_threshold_is_the_highest_that_keeps_the_share(values: list[float], share: float) -> None:
    threshold = threshold_that_keeps(values, share)
    assert sum(value >= threshold for value in values) >= share * len(values)
    higher = [value for value in values if value > threshold]
    assert len(higher) < share * len(values)
    assert share_below(values, threshold) <= 1 - share + 1e-9


def reading(said: str, answers: tuple[str, ...], margin: float) -> Reading:
    return Reading(said, answers, PassageSpan(0, len(said), margin, 0.0))


def test_the_threshold_keeps_right_answers_and_tells_what_is_refused() -> None:
    right = [reading("cat", ("cat",), float(margin)) for margin in range(10)]
    near = [reading("cat dog", ("cat",), 0.5), reading("dog", ("cat",), -3.0)]
    nowhere = [reading("owl", (), margin) for margin in (-1.0, 0.9, 1.0, 4.0)]
    empty = [Reading("", (), None)]
    found = judge([*right, *near, *nowhere, *empty])
    assert found == ReaderQuality(
        exact_match=pytest.approx(10 / 12),
        f1=pytest.approx((10 + 2 / 3) / 12),
        threshold=1.0,
        answered=pytest.approx(9 / 12),
        refused=pytest.approx(3 / 5),
    )
    assert sum(item.margin >= 1.0 for item in right) == KEPT * len(right)
    assert judge([*right, *near, *nowhere, *empty], threshold=5).refused == 1.0


def test_what_was_not_asked_is_not_judged() -> None:
    assert judge([]) == ReaderQuality(None, None, None, None, None)
    unanswerable = [reading("owl", (), 1.0)]
    assert judge(unanswerable).refused is None
    assert judge(unanswerable, threshold=2).refused == 1.0
    assert judge([reading("dog", ("cat",), 1.0)]) == ReaderQuality(0.0, 0.0, None, None, None)
