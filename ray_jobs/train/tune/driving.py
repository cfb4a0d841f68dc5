"""Trials on the cluster: Ray Tune starts them, starts lost ones again, and asks the campaign what to do.

Each trial is a small process that runs the training job itself; its workers are those of Ray Train and take the
resources. Guaranteed: a trial whose process is lost starts again and goes on from its run's last checkpoint; a trial
that fails by itself does not end the others. Stopping is said to the trial, which ends by itself: to kill its process,
as Tune would, leaves behind what Ray Train keeps for a controller that was lost.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune import Stopper
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from ray_jobs.beside import Beside
from ray_jobs.errors import TandemError
from ray_jobs.runtime import beside_this_process, find_cause, raise_if_interrupted
from ray_jobs.train.tune.trial import FAILED, OUTCOME, Verdicts, run_trial

if TYPE_CHECKING:
    from ray_jobs.train.tune.campaign import Campaign

_RESTARTS = 2  # of a trial whose process was lost
_LOOK_SECONDS = 0.2
_PARTING_SECONDS = 60.0  # until Tune has told its trials to stop
_RAY_TUNE = {
    # Its newer reporter greets on standard output, however quiet it is told to be.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Nobody reads the files that Tune writes about each trial.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Trials are killed only when all are to stop: the process of one then waits for workers, and is not waited for.
    "TUNE_FORCE_TRIAL_CLEANUP_S": "1",
    # Trials stand where the driver's paths are understood: all of theirs are absolute.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


def drive(campaign: Campaign, parallel: int, seconds: float | None, evaluated: bool) -> bool:
    """Run the campaign's trials, `parallel` at once; whether it came to its end within `seconds`.

    `evaluated` says whether the evaluation before and after training decides.
    Raises TandemError where the campaign cannot go on, KeyboardInterrupt when this job was asked to stop.
    """
    import ray
    from ray import tune

    os.environ.update(_RAY_TUNE)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    verdicts = ray.remote(num_cpus=0, scheduling_strategy=beside_this_process())(Verdicts).remote()
    common = {"verdicts": verdicts, "evaluated": evaluated}
    ending = _Ending(campaign, None if seconds is None else time.monotonic() + seconds)

    def fit() -> None:
        with tempfile.TemporaryDirectory(prefix="tandem-tune-") as folder:
            tune.Tuner(
                # Resources are the workers'; Tune wants some for the trial, which needs none.
                tune.with_resources(tune.with_parameters(run_trial, common=common), {"memory": 1}),
                tune_config=tune.TuneConfig(
                    search_alg=_Proposing(campaign, parallel, ending),
                    scheduler=_Listening(campaign, verdicts),
                    reuse_actors=True,
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

    # Not in this thread: there Ray would take the signals that stop this job.
    tuning = Beside(fit, "tune")
    try:
        while not tuning.wait(_LOOK_SECONDS):
            raise_if_interrupted()
    except KeyboardInterrupt:
        ending.asked.set()
        # Whoever asks Ray for something once its session is over ends this process at once, without a word.
        tuning.wait(_PARTING_SECONDS)
        raise
    if tuning.error is not None:
        raise find_cause(tuning.error) or tuning.error
    if campaign.fault is not None:
        raise campaign.fault
    return not ending.is_late


def _reason(trial: Any) -> str:
    """The last line of what Tune wrote beside the trial; what its own accessors read is copied from there later."""
    written = trial.error_file
    text = Path(written).read_text(encoding="utf-8").strip() if written and Path(written).is_file() else ""
    return (text.splitlines() or ["its process was lost"])[-1]


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


class _Listening(_OfThisDriver, FIFOScheduler):  # type: ignore[misc]
    """Tells the campaign what trials report, and the trials what it says to that."""

    def __init__(self, campaign: Campaign, verdicts: Any) -> None:
        super().__init__()
        self._campaign = campaign
        self._verdicts = verdicts

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """One report of a trial: an evaluation, an outcome or a failure."""
        try:
            self._listen(trial.config["number"], result)
        except TandemError as error:
            # A store that refuses, a metric that is none: no trial would fare better.
            self._campaign.fault = error
        return str(TrialScheduler.CONTINUE)

    def _listen(self, number: int, result: dict[str, Any]) -> None:
        if FAILED in result:
            self._campaign.failed(number, result[FAILED])
        elif OUTCOME in result:
            self._campaign.finished(number, **json.loads(result[OUTCOME]))
        elif "step" in result:
            step = int(result["step"])
            goes_on = self._campaign.evaluated(number, step, int(result["steps"]), _numbers(result))
            self._verdicts.give.remote(number, step, goes_on)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Its place is free."""
        self._campaign.released(trial.config["number"])

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """It was lost too often, or met a defect."""
        self._campaign.failed(trial.config["number"], _reason(trial))
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
