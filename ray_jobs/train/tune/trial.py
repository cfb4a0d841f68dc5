"""One trial: the training job in a small process of its own, obeying the search's driver.

Guaranteed: a trial that is stopped ends as a run does that fails, with its workers gone before it reports its end, so
that what it leaves can be removed. Not guaranteed: that a trial is stopped where its driver does not answer in time; it
goes on to its next evaluation then.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from ray.train import UserCallback

from ray_jobs.errors import TandemError, first_line
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.tune.objective import judged
from ray_jobs.train.under_way import Hooks

ANSWER_SECONDS = 10.0
FAILED, OUTCOME = "failed", "outcome"


class StoppedEarlyError(TandemError):
    """The search has given the trial up."""


class Verdicts:
    """What the driver says to each evaluation of each trial; an actor, which trials wait on."""

    def __init__(self) -> None:
        self._given: dict[tuple[int, int], bool] = {}
        self._news = asyncio.Event()

    async def give(self, number: int, step: int, goes_on: bool) -> None:
        """Say whether trial `number` goes on after its evaluation at `step`."""
        self._given[number, step] = goes_on
        self._news.set()
        self._news = asyncio.Event()

    async def take(self, number: int, step: int) -> bool:
        """What was said, as soon as it is said; True where nothing is in time."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                while (number, step) not in self._given:
                    await self._news.wait()
        except TimeoutError:
            return True
        return self._given[number, step]

    async def is_stopped(self, number: int) -> bool:
        """Whether the trial was given up."""
        return any(not goes_on for (trial, _), goes_on in self._given.items() if trial == number)


class Obey(UserCallback):  # type: ignore[misc]
    """Ends a run whose trial is given up, after each evaluation."""

    def __init__(self, verdicts: Any, number: int) -> None:
        self._verdicts = verdicts
        self._number = number

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Wait for the verdict; raises StoppedEarlyError where it is to stop."""
        import ray

        if not ray.get(self._verdicts.take.remote(self._number, int(metrics[0]["step"]))):
            raise StoppedEarlyError(f"trial {self._number} is given up")


def run_trial(given: dict[str, Any], common: dict[str, Any]) -> None:
    """What Ray Tune runs: the job, its evaluations told to Tune, its outcome last.

    `given` has the trial's number and configuration, `common` what all trials share.
    """
    import ray
    from ray import tune
    from ray.tune.integration.ray_train import TuneReportCallback

    from ray_jobs.train import job

    config = judged(TrainConfig.model_validate_json(given["train"]), common["evaluated"])
    number, verdicts = given["number"], common["verdicts"]
    # The first passes the evaluation on, the second waits for what is said to it.
    callbacks = (TuneReportCallback(), Obey(verdicts, number))
    try:
        summary = job.run(config, hooks=Hooks(callbacks=callbacks, publish=False))
        tune.report({OUTCOME: json.dumps(outcome(config, summary))})
    except Exception as error:
        if ray.get(verdicts.is_stopped.remote(number)):
            return
        if not isinstance(error, TandemError):
            raise
        tune.report({FAILED: first_line(error)})


def outcome(config: TrainConfig, summary: Any) -> dict[str, Any]:
    """What a finished run has found: the arguments of `Campaign.finished` after the number."""
    from ray_jobs.storage import open_storage

    storage = open_storage(config.store)
    history = json.loads(storage.read(f"{summary.run}/finished.json"))["history"]
    rows = []
    if storage.exists(key := f"{summary.run}/evaluation.json"):
        rows = json.loads(storage.read(key))["rows"]
    return {
        "steps": summary.steps,
        "metrics": summary.metrics,
        "rows": rows,
        "history": [entry for entry in history if "step" in entry],
    }
