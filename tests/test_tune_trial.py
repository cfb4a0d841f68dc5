"""What a trial and its driver say to each other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ray import tune
from ray.tune.integration import ray_train

from ray_jobs.train import job
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.evaluation_config import EvaluationConfig
from ray_jobs.train.tune import trial
from ray_jobs.train.tune.trial import Verdicts


def test_a_trial_waits_for_the_verdict_on_its_own_evaluation() -> None:
    async def talk() -> tuple[bool, bool, bool]:
        verdicts = Verdicts()
        first, second = (asyncio.ensure_future(verdicts.take(number, 10)) for number in (1, 2))
        await asyncio.sleep(0)
        await verdicts.give(1, 5, False)
        await verdicts.give(2, 10, False)
        second_goes_on = await second
        waits = not first.done()
        await verdicts.give(1, 10, True)
        return waits, second_goes_on, await first

    assert asyncio.run(talk()) == (True, False, True)


def test_without_an_answer_in_time_a_trial_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "ANSWER_SECONDS", 0.01)
    assert asyncio.run(Verdicts().take(1, 10))


def test_a_trial_that_was_given_up_stays_so() -> None:
    async def talk() -> list[bool]:
        verdicts = Verdicts()
        await verdicts.give(1, 10, False)
        await verdicts.give(2, 10, True)
        return [await verdicts.is_stopped(number) for number in (1, 2, 3)]

    assert asyncio.run(talk()) == [True, False, False]


@pytest.mark.parametrize(
    ("evaluated", "expected"),
    [(True, EvaluationConfig(samples=7, split="validation")), (False, EvaluationConfig(test=False))],
)
def test_a_trial_is_not_measured_on_test_rows(
    monkeypatch: pytest.MonkeyPatch, evaluated: bool, expected: EvaluationConfig
) -> None:
    trained: list[TrainConfig] = []
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(ray_train, "TuneReportCallback", object)
    monkeypatch.setattr(tune, "report", told.append)
    monkeypatch.setattr(job, "run", lambda config, hooks: trained.append(config))
    monkeypatch.setattr(trial, "outcome", lambda config, summary: {})
    given = {"method": "sft", "base": "x", "data": "y", "name": "z", "evaluation": {"samples": 7}}
    config = TrainConfig.model_validate(given)
    trial.run_trial({"number": 0, "train": config.model_dump_json()}, {"verdicts": None, "evaluated": evaluated})
    assert [one.evaluation for one in trained] == [expected]
    assert told == [{trial.OUTCOME: "{}"}]
