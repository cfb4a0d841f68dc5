"""Trials on the cluster: Ray Tune starts, stops and restarts them, and asks the campaign what to do.

Each trial is a small process that runs the training job itself; its workers are those of Ray Train and take the
resources. Guaranteed: a trial whose process is lost starts again and goes on from its run's last checkpoint; a trial
that fails by itself does not end the others. Not guaranteed: that the workers of a stopped trial are gone when the next
one starts.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any

from ray.tune import Stopper
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from ray_jobs.errors import TandemError
from ray_jobs.runtime import find_cause, raise_if_interrupted
from ray_jobs.train.config import TrainConfig

if TYPE_CHECKING:
    from ray_jobs.train.tune.campaign import Campaign

_RESTARTS = 2  # of a trial whose process was lost
_LOOK_SECONDS = 0.2
_RAY_TUNE = {
    # Nobody reads the files that Tune writes about each trial.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # A trial that is told to stop is a process that waits for workers: it is not waited for.
    "TUNE_FORCE_TRIAL_CLEANUP_S": "1",
    # Trials stand where the driver's paths are understood: all of theirs are absolute.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
_FAILED, _OUTCOME = "failed", "outcome"


def drive(campaign: Campaign, parallel: int, seconds: float | None) -> bool:
    """Run the campaign's trials, `parallel` at once; whether it came to its end within `seconds`.

    Raises TandemError where the campaign cannot go on, KeyboardInterrupt when this job was asked to stop.
    """
    from ray import tune

    os.environ.update(_RAY_TUNE)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    ending = _Ending(campaign, None if seconds is None else time.monotonic() + seconds)
    ended: list[BaseException | None] = []

    def fit() -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="tandem-tune-") as folder:
                tune.Tuner(
                    # Resources are the workers'; Tune wants some for the trial, which needs none.
                    tune.with_resources(run_trial, {"memory": 1}),
                    tune_config=tune.TuneConfig(
                        search_alg=_Proposing(campaign, parallel, ending),
                        scheduler=_Stopping(campaign),
                        num_samples=-1,
                        trial_dirname_creator=_name_of,
                        trial_name_creator=_name_of,
                    ),
                    run_config=tune.RunConfig(
                        storage_path=folder,
                        name="trials",
                        stop=ending,
                        verbose=0,
                        failure_config=tune.FailureConfig(max_failures=_RESTARTS),
                    ),
                ).fit()
            ended.append(None)
        except BaseException as error:
            ended.append(error)

    # Not in this thread: there Ray would take the signals that stop this job.
    thread = threading.Thread(target=fit, name="tune", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_LOOK_SECONDS)
            raise_if_interrupted()
    except KeyboardInterrupt:
        ending.asked.set()
        thread.join(10 * _LOOK_SECONDS)
        raise
    if ended and ended[0] is not None:
        raise find_cause(ended[0]) or ended[0]
    if campaign.fault is not None:
        raise campaign.fault
    return not ending.is_late


def run_trial(given: dict[str, Any]) -> None:
    """One trial: the training job, its evaluations told to Tune, its outcome last."""
    from ray import tune
    from ray.tune.integration.ray_train import TuneReportCallback

    from ray_jobs.storage import open_storage
    from ray_jobs.train import job

    config = TrainConfig.model_validate_json(given["train"])
    try:
        summary = job.run(config, hooks=job.Hooks(callbacks=(TuneReportCallback(),), publish=False))
        storage = open_storage(config.store)
        finished = json.loads(storage.read(f"{summary.run}/finished.json"))
        rows = []
        if storage.exists(f"{summary.run}/evaluation.json"):
            rows = _rows(json.loads(storage.read(f"{summary.run}/evaluation.json")))
    except TandemError as error:
        tune.report({_FAILED: (str(error).splitlines() or [type(error).__name__])[0]})
        return
    outcome = {
        "steps": summary.steps,
        "metrics": summary.metrics,
        "rows": rows,
        "history": [entry for entry in finished["history"] if "step" in entry],
    }
    tune.report({_OUTCOME: json.dumps(outcome)})


def _rows(evaluation: Any) -> list[dict[str, Any]]:
    return list(evaluation["rows"] if isinstance(evaluation, dict) else evaluation)


def _name_of(trial: Any) -> str:
    return f"trial-{trial.config['number']:04d}"


class _OfThisDriver:
    """Tune writes its parts down to start again from them; this campaign does so from the store."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Proposing(_OfThisDriver, Searcher):  # type: ignore[misc]
    """Asks the campaign for the next trial, while fewer than `parallel` run."""

    def __init__(self, campaign: Campaign, parallel: int, ending: _Ending) -> None:
        super().__init__()
        self._campaign = campaign
        self._parallel = parallel
        self._ending = ending

    def suggest(self, trial_id: str) -> Any:
        """The configuration of a trial, None for not yet, FINISHED for no more."""
        if self._ending.stop_all():
            return Searcher.FINISHED
        if self._campaign.running >= self._parallel:
            return None
        if (found := self._campaign.next()) is None:
            return Searcher.FINISHED
        number, config = found
        return {"number": number, "train": config.model_dump_json()}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Told by the scheduler."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the store has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class _Stopping(_OfThisDriver, FIFOScheduler):  # type: ignore[misc]
    """Tells the campaign what trials report, and stops those that it gives up."""

    def __init__(self, campaign: Campaign) -> None:
        super().__init__()
        self._campaign = campaign

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """One report of a trial: an evaluation, an outcome or a failure."""
        number = trial.config["number"]
        if _FAILED in result:
            self._campaign.failed(number, result[_FAILED])
        elif _OUTCOME in result:
            self._campaign.finished(number, **json.loads(result[_OUTCOME]))
        elif "step" in result and not self._campaign.evaluated(
            number, int(result["step"]), int(result["steps"]), _numbers(result)
        ):
            return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Its place is free."""
        self._campaign.released(trial.config["number"])

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """It was lost too often, or met a defect."""
        error = trial.get_error()
        reason = (str(error).strip().splitlines() or ["its process was lost"])[-1]
        self._campaign.failed(trial.config["number"], reason)
        self._campaign.released(trial.config["number"])


class _Ending(_OfThisDriver, Stopper):  # type: ignore[misc]
    """Says when all trials are to stop: when asked, when time is up, or when the campaign cannot go on."""

    def __init__(self, campaign: Campaign, deadline: float | None) -> None:
        self.asked = threading.Event()
        self.is_late = False
        self._campaign = campaign
        self._deadline = deadline

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial by itself."""
        return False

    def stop_all(self) -> bool:
        """Whether all are to stop."""
        if self._deadline is not None and time.monotonic() > self._deadline:
            self.is_late = True
        return self.asked.is_set() or self.is_late or self._campaign.fault is not None


def _numbers(result: dict[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in result.items() if key.startswith("eval_")}
