"""What makes a trial the best, and which trials are stopped."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.errors import UsageError
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.evaluation.judges import JUDGES
from ray_jobs.train.evaluation.scores import METRICS
from ray_jobs.train.evaluation_config import EvaluationConfig
from ray_jobs.train.tune.config import ObjectiveConfig
from ray_jobs.train.tune.halving import Halving
from ray_jobs.train.tune.objective import Objective, Score, check_measured, judged, resolve


def row(name: str, role: str, metric: str, before: float, after: float) -> dict[str, Any]:
    return {"set": name, "role": role, "metric": metric, "before": before, "after": after, "delta": after - before}


def objective(**given: Any) -> Objective:
    return Objective(ObjectiveConfig.model_validate(given), "eval_loss", "min")


ROWS = [
    row("test", "target", "ndcg@10", 0.6, 0.7),
    row("squad", "retained", "ndcg@10", 0.9, 0.85),
    row("wiki", "retained", "perplexity", 20.0, 23.0),
]


def test_by_default_the_metric_of_the_method_decides() -> None:
    found = resolve(ObjectiveConfig(), train(), ("eval_loss", "min"))
    assert (found.name, found.mode) == ("eval_loss", "min")
    assert found.score({"eval_loss": 2.0}, []) == Score(value=2.0)


def test_a_metric_that_the_evaluation_lacks_is_named_with_those_it_has() -> None:
    with pytest.raises(UsageError, match=r"objective\.metric=eval_loss: the evaluation gave eval_f1, eval_x"):
        objective().running({"eval_f1": 1, "eval_x": 2, "step": 3})


def test_the_value_is_the_gain_less_the_weighted_loss() -> None:
    found = objective(retained="squad", weight=2).score({}, ROWS)
    assert found.value == pytest.approx(0.1 - 2 * 0.05)
    assert (found.gain, found.forgotten) == (pytest.approx(0.1), pytest.approx(0.05))


def test_the_retained_set_is_found_whichever_split_of_it_was_measured() -> None:
    rows = [row("validation", "target", "f1", 0.5, 0.6), row("old (validation)", "retained", "f1", 0.9, 0.8)]
    found = objective(retained="old", weight=1).score({}, rows)
    assert found.forgotten == pytest.approx(0.1)


def test_a_trial_is_measured_on_validation_rows_or_not_at_all() -> None:
    given = {"method": "sft", "base": "x", "data": "y", "name": "z", "evaluation": {"samples": 7}}
    config = TrainConfig.model_validate(given)
    assert judged(config, by_evaluation=True).evaluation == EvaluationConfig(samples=7, split="validation")
    assert not judged(config, by_evaluation=False).evaluation.wanted


def test_a_gain_is_above_zero_for_metrics_that_are_best_low_too() -> None:
    rows = [row("test", "target", "perplexity", 9.0, 5.0), row("wiki", "retained", "perplexity", 20.0, 23.0)]
    found = objective(retained="wiki", weight=1).score({}, rows)
    assert (found.gain, found.forgotten, found.value) == (4.0, 3.0, 1.0)


def test_a_retained_set_that_became_better_counts_as_nothing_forgotten() -> None:
    rows = [row("test", "target", "f1", 0.5, 0.6), row("old", "retained", "f1", 0.5, 0.9)]
    found = objective(retained="old", weight=1).score({}, rows)
    assert (found.forgotten, found.value) == (0.0, pytest.approx(0.1))


PREFERENCES = [
    row("validation", "target", "perplexity", 9.0, 8.0),
    row("validation", "target", "reward_accuracy", 0.5, 0.75),
    row("wiki (validation)", "retained", "perplexity", 20.0, 23.0),
    row("wiki (validation)", "retained", "token_kl", 0.0, 0.25),
]


@pytest.mark.parametrize(
    ("given_objective", "gain", "forgotten"),
    [
        ({"target": "reward_accuracy"}, 0.25, 3.0),
        ({"target": "reward_accuracy", "retained_metric": "token_kl"}, 0.25, 0.25),
        ({"target": "perplexity", "retained_metric": "token_kl"}, 1.0, 0.25),
        ({}, 1.0, 3.0),
    ],
    ids=str,
)
def test_target_and_retained_set_are_each_measured_by_a_metric_of_their_own(
    given_objective: dict[str, Any], gain: float, forgotten: float
) -> None:
    found = objective(retained="wiki", weight=2, **given_objective).score({}, PREFERENCES)
    assert (found.gain, found.forgotten, found.value) == (gain, forgotten, gain - 2 * forgotten)


REPORTED = (("perplexity", "token_kl", "reward_accuracy"), {"wiki": ("perplexity", "token_kl")})


@pytest.mark.parametrize(
    ("given_objective", "message"),
    [
        (
            {"target": "reward_acuracy"},
            r"objective\.target=reward_acuracy: did you mean reward_accuracy\? the validation rows of the data are "
            r"measured by perplexity, token_kl, reward_accuracy; choose one of those",
        ),
        (
            {"target": "perplexity", "retained": "wiki", "retained_metric": "reward_accuracy", "weight": 1},
            r"objective\.retained_metric=reward_accuracy: the rows of evaluation\.retained\.wiki are measured by ",
        ),
    ],
)
def test_a_metric_that_no_trial_is_measured_by_is_refused_up_front(
    given_objective: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        check_measured(ObjectiveConfig.model_validate(given_objective), *REPORTED)
    assert "\n" not in str(refused.value)


def test_a_target_without_rows_is_refused_up_front() -> None:
    with pytest.raises(UsageError, match=r"objective\.target=f1: the data has no rows in its validation split"):
        check_measured(ObjectiveConfig(target="f1"), None, {})


def test_metrics_that_trials_are_measured_by_are_taken() -> None:
    given_objective = {"target": "reward_accuracy", "retained": "wiki", "retained_metric": "token_kl", "weight": 1}
    check_measured(ObjectiveConfig.model_validate(given_objective), *REPORTED)
    check_measured(ObjectiveConfig(retained="wiki", weight=1), *REPORTED)


def test_every_metric_of_a_judge_has_a_direction() -> None:
    for known in JUDGES.values():
        for kind, metrics in known.metrics.items():
            assert set(metrics) <= set(METRICS), kind


def test_within_the_limit_comes_before_beyond_it_whatever_the_gain() -> None:
    chosen = objective(retained="squad", max_loss=0.01)
    mild = chosen.score({}, [row("t", "target", "f1", 0.5, 0.51), row("squad", "retained", "f1", 0.9, 0.895)])
    wild = chosen.score({}, [row("t", "target", "f1", 0.5, 0.9), row("squad", "retained", "f1", 0.9, 0.7)])
    worse = chosen.score({}, [row("t", "target", "f1", 0.5, 0.95), row("squad", "retained", "f1", 0.9, 0.6)])
    assert mild.excess == 0
    assert sorted([worse, wild, mild], key=chosen.order) == [mild, wild, worse]


@pytest.mark.parametrize(
    ("given_objective", "message"),
    [
        ({"target": "f1"}, r"objective\.target=f1: .* it has ndcg@10 of test"),
        ({"retained": "news", "weight": 1}, r"objective\.retained=news: .* it has ndcg@10 of squad"),
        (
            {"retained": "wiki", "retained_metric": "token_kl", "weight": 1},
            r"objective\.retained=wiki by token_kl: .* it has ndcg@10 of squad, perplexity of wiki",
        ),
    ],
)
def test_an_evaluation_without_the_row_is_named(given_objective: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        objective(**given_objective).score({}, ROWS)


def train(**evaluation: Any) -> Any:
    return SimpleNamespace(evaluation=EvaluationConfig.model_validate(evaluation))


def test_an_objective_from_an_evaluation_that_nobody_asked_for_is_refused_up_front() -> None:
    config = ObjectiveConfig(retained="wiki", weight=1)
    with pytest.raises(
        UsageError, match=r"train\.evaluation\.retained names no set; .* or add evaluation\.retained\.wiki to train"
    ):
        resolve(config, train(), ("eval_loss", "min"))
    evaluation = {"retained": {"wikitext": "x"}, "test": True}
    with pytest.raises(UsageError, match=r"did you mean wikitext\? train\.evaluation\.retained names wikitext"):
        resolve(config, train(**evaluation), ("eval_loss", "min"))
    evaluation = {"retained": {"wiki": "x"}, "test": False}
    with pytest.raises(UsageError, match=r"train\.evaluation\.test=false: the target is not measured"):
        resolve(config, train(**evaluation), ("eval_loss", "min"))
    evaluation = {"retained": {"wiki": "x"}, "test": True}
    assert resolve(config, train(**evaluation), ("eval_loss", "min")).mode == "max"


@given(
    values=st.lists(st.floats(-100, 100), min_size=1, max_size=30),
    factor=st.sampled_from([1.5, 2.0, 3.0, 4.0]),
)
def test_a_trial_passes_a_rung_only_among_the_best_that_reached_it(values: list[float], factor: float) -> None:
    halving = Halving(0.25, factor, "min")
    for number, value in enumerate(values):
        rank = sum(other < value for other in values[:number])
        assert halving.passed(number, 0.25, value) == (rank < max(1, int((number + 1) / factor)))


@given(values=st.lists(st.floats(-100, 100), min_size=1, max_size=30, unique=True))
def test_the_best_of_all_is_never_stopped(values: list[float]) -> None:
    halving = Halving(10, 3, "max")
    for number, value in enumerate(values):
        went_on = all(halving.passed(number, step, value) for step in (5, 10, 30, 60, 90))
        assert went_on or value < max(values)


def test_between_rungs_and_before_the_first_nobody_is_stopped() -> None:
    halving = Halving(0.25, 2, "min")
    assert halving.passed(0, 0.25, 1.0)
    assert halving.passed(1, 0.2, 9.0)
    assert not halving.passed(1, 0.3, 9.0)
    assert halving.passed(2, 0.25, 0.5)
    assert halving.passed(2, 0.4, 99.0)
