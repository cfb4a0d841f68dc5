"""What a search leaves in the store: the table, the best configuration, the report.

Guaranteed: the best configuration reads back as the very one that was tried, also from the local file that stands for
an object of a bucket. Not guaranteed: the importance of keys where there were few trials; it is left out then.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import yaml

from ray_jobs.errors import CorruptError
from ray_jobs.storage import Storage
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.tune import report
from ray_jobs.train.tune.objective import Objective
from ray_jobs.train.tune.proposals import Told, importance
from ray_jobs.train.tune.space import Space
from ray_jobs.train.tune.summary import PLACES, Row, TuneSummary
from ray_jobs.train.tune.trials import Trial, Trials

_ENOUGH = 8  # trials, for the importance of keys


def write(
    storage: Storage, folder: str, space: Space, objective: Objective, trials: Trials, complete: bool
) -> TuneSummary:
    """Put table, best configuration and report into the store, in place of those of an earlier part of the search."""
    ranked = sorted(trials.ended, key=lambda trial: _place(trial, objective))
    best = next((trial for trial in ranked if trial.ended is not None and trial.ended.state == "finished"), None)
    summary = TuneSummary(
        name=space.example.name,
        objective=objective.name,
        mode=objective.mode,
        metric=objective.metric,
        best=None if best is None else best.number,
        best_config=None,
        report=f"{storage.uri}/{folder}/report.html",
        complete=complete and not trials.open,
        left_open=len(trials.open),
        impossible=sum(trial.begun.impossible for trial in trials),
        importance=_importance(space, objective, trials),
        logarithmic=tuple(key for key, dimension in space.dimensions.items() if dimension.scale == "log"),
        seconds=0.0,
        trials=tuple(_row(trial) for trial in ranked),
    )
    if best is not None:
        text = best_yaml(space, best, summary).encode()
        _replace(storage, f"{folder}/best.yaml", text)
        summary = summary.model_copy(update={"best_config": str(_local(storage, f"{folder}/best.yaml", text))})
    _replace(storage, f"{folder}/trials.json", summary.model_dump_json(indent=1).encode())
    _replace(storage, f"{folder}/report.html", report.page(summary).encode())
    return summary


def best_yaml(space: Space, best: Trial, summary: TuneSummary) -> str:
    """The whole configuration of the best trial."""
    config = space.config_at(best.begun.point)
    value = best.ended.score.value if best.ended is not None and best.ended.score is not None else float("nan")
    assert config is not None, "it was trained"
    cut = best.ended is not None and best.ended.step < best.ended.steps
    head = (
        f"# The best of {len(summary.trials)} trials: trial {best.number}, {summary.objective} {value:.6g}.\n"
        f"# tandem train --config THIS_FILE {'trains it to its end and ' if cut else ''}publishes it.\n"
    )
    text = head + yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    if TrainConfig.model_validate(yaml.safe_load(text)) != config:
        raise CorruptError(f"trial {best.number}: its configuration does not read back as it was; report this defect")
    return text


def _row(trial: Trial) -> Row:
    begun, ended = trial.begun, trial.ended
    assert ended is not None, "only trials that have ended are listed"
    score = ended.score
    return Row(
        trial=begun.number,
        state=ended.state,
        value=None if score is None else score.value,
        gain=None if score is None else score.gain,
        forgotten=None if score is None else score.forgotten,
        within_limit=score is None or score.excess == 0,
        point=begun.point,
        step=ended.step,
        steps=ended.steps,
        seconds=ended.seconds,
        reason=ended.reason,
        run=begun.run,
        metrics=ended.metrics,
        evaluations=ended.evaluations,
    )


def _place(trial: Trial, objective: Objective) -> tuple[int, float, float, float, int]:
    ended = trial.ended
    assert ended is not None, "only trials that have ended are listed"
    order = (0.0, 0.0) if ended.score is None else objective.order(ended.score)
    # Of trials that were stopped, those that came far are the better ones, whatever their last value.
    far = -ended.step if ended.state == "stopped" else 0.0
    return PLACES[ended.state], far, *order, trial.number


def _importance(space: Space, objective: Objective, trials: Trials) -> dict[str, float]:
    """By the values of finished trials; where validation decides, by those of all at a share that all have reached."""
    ended = [found for trial in trials.ended if (found := trial.told(objective)) is not None]
    finished = [entry for entry in ended if entry.value is not None and not entry.stopped]
    told = finished if objective.config.from_evaluation else _at_one_share(trials)
    if len(told) < _ENOUGH or len({entry.value for entry in told}) < 2:
        return {}
    return importance(space, objective.mode, told)


def _at_one_share(trials: Trials) -> list[Told]:
    """The trials by their evaluations where the first one was stopped: early and late values cannot be compared."""
    measured = [
        (trial.begun.point, trial.ended.evaluations)
        for trial in trials
        if trial.ended is not None and trial.ended.state != "failed" and trial.ended.evaluations
    ]
    common = min((entries[-1].share for _, entries in measured), default=0.0)
    reached = [(point, [entry for entry in entries if entry.share <= common]) for point, entries in measured]
    return [Told(point, entries[-1].value) for point, entries in reached if entries]


def _replace(storage: Storage, key: str, data: bytes) -> None:
    storage.delete(key)
    storage.create(key, data)


def _local(storage: Storage, key: str, data: bytes) -> Path:
    """A local file of `key`, which holds `data`."""
    return storage.local(key, hashlib.sha256(data).hexdigest())
