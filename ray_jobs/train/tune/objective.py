"""What makes one trial better than another.

By default the metric that tells the best checkpoint; or, from the evaluation before and after training, what was gained
on the target less what was forgotten, each by a metric of its own, both on validation rows: test rows have no say in
what is chosen. Guaranteed: a gain is above 0 where the model became better and forgetting is above 0 where it became
worse, whichever way the metric points. A retained set on which the model became better counts as nothing forgotten. A
metric by which a set is never measured is refused before any trial. Not guaranteed: that rows of a retained set without
a validation split are unseen when the best is measured on them; nor that the two metrics have one unit, which the
weight must make up for.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ray_jobs.errors import UsageError
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.evaluation.scores import METRICS
from ray_jobs.train.evaluation.sets import is_of
from ray_jobs.train.evaluation_config import EvaluationConfig
from ray_jobs.train.tune.config import ObjectiveConfig

Mode = Literal["min", "max"]
Row = Mapping[str, Any]
"""One row of evaluation.json: set, role, metric, before, after, delta, ..."""


class Score(BaseModel):
    """How good a trial is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float
    excess: float = 0.0  # by how much more was forgotten than is allowed
    gain: float | None = None
    forgotten: float | None = None


@dataclass(frozen=True, slots=True)
class Objective:
    """An objective whose every part is known."""

    config: ObjectiveConfig
    metric: str
    """Of the validation rows: what trials are compared by while they run."""
    metric_mode: Mode

    @property
    def mode(self) -> Mode:
        """Whether the value of a trial is best low or high."""
        return "max" if self.config.from_evaluation else self.metric_mode

    @property
    def name(self) -> str:
        """What the value of a trial is, in a few words."""
        chosen = self.config
        if not chosen.from_evaluation:
            return self.metric
        gain = f"gain in {chosen.target or 'the target metric'} on validation rows"
        by = "" if chosen.retained_metric is None else f" by {chosen.retained_metric}"
        if chosen.weight is not None:
            return f"{gain} - {chosen.weight:g} x forgotten on {chosen.retained}{by}"
        limit = "" if chosen.max_loss is None else f", at most {chosen.max_loss:g} forgotten on {chosen.retained}{by}"
        return f"{gain}{limit}"

    def running(self, metrics: Mapping[str, float]) -> float:
        """The value of one evaluation during training; raises UsageError where it has no such metric."""
        if self.metric not in metrics:
            found = ", ".join(sorted(key for key in metrics if key.startswith("eval_")))
            raise UsageError(f"objective.metric={self.metric}: the evaluation gave {found}; choose one of them")
        return metrics[self.metric]

    def aligned(self, running: float) -> float:
        """The value of one evaluation during training, best high or low as the values of trials are."""
        return running if self.metric_mode == self.mode else -running

    def score(self, metrics: Mapping[str, float], rows: Sequence[Row]) -> Score:
        """The score of a trial by its best checkpoint's metrics and its evaluation.

        Raises UsageError where the evaluation lacks what the objective names.
        """
        if not self.config.from_evaluation:
            return Score(value=self.running(metrics))
        target = _row(rows, "target", self.config.target, None)
        gain = -_worse_by(target)
        if self.config.retained is None:
            return Score(value=gain, gain=gain)
        retained = _row(rows, "retained", self.config.retained_metric, self.config.retained)
        forgotten = max(0.0, _worse_by(retained))
        if self.config.weight is not None:
            return Score(value=gain - self.config.weight * forgotten, gain=gain, forgotten=forgotten)
        excess = max(0.0, forgotten - (self.config.max_loss or 0.0))
        return Score(value=gain, excess=excess, gain=gain, forgotten=forgotten)

    def order(self, score: Score) -> tuple[float, float]:
        """Sorts the best first: those within the limit, then those beyond it by how far."""
        return score.excess, -score.value if self.mode == "max" else score.value


def resolve(config: ObjectiveConfig, train: TrainConfig, by_default: tuple[str, Mode]) -> Objective:
    """The objective of a search; `by_default` is the metric of the method.

    Raises UsageError where it needs an evaluation that `train` does not ask for.
    """
    if config.from_evaluation:
        _check_evaluation(config, train.evaluation)
    metric, mode = by_default
    if config.metric is not None and config.mode is not None:
        metric, mode = config.metric, config.mode
    return Objective(config, metric, mode)


def check_measured(
    config: ObjectiveConfig, target: Sequence[str] | None, retained: Mapping[str, Sequence[str]]
) -> None:
    """Raise UsageError for a metric by which no trial is measured.

    `target` has the metrics of the target's rows, None where there are no such rows; `retained` those of each retained
    set, by its name.
    """
    if target is None:
        asked = f"objective.target={config.target}" if config.target else f"objective.retained={config.retained}"
        raise UsageError(
            f"{asked}: the data has no rows in its validation split, on which the gain is measured; prepare the data "
            "with a larger split.validation"
        )
    _check_metric("objective.target", config.target, "the validation rows of the data", target)
    if config.retained is not None:
        name = f"the rows of evaluation.retained.{config.retained}"
        _check_metric("objective.retained_metric", config.retained_metric, name, retained[config.retained])


def judged(config: TrainConfig, by_evaluation: bool) -> TrainConfig:
    """The same run, measured as its search needs it.

    Where the evaluation decides, it is on validation rows: those of the test are kept for what is chosen. Elsewhere
    nothing is measured before and after: the run's own validation decides.
    """
    if by_evaluation:
        evaluation = config.evaluation.model_copy(update={"split": "validation"})
    else:
        evaluation = EvaluationConfig(test=False)
    return config.model_copy(update={"evaluation": evaluation})


def _check_evaluation(config: ObjectiveConfig, evaluation: EvaluationConfig) -> None:
    asked = f"objective.target={config.target}" if config.retained is None else f"objective.retained={config.retained}"
    if not evaluation.test:
        raise UsageError(f"{asked} with train.evaluation.test=false: the target is not measured; leave test out")
    names = list(evaluation.retained)
    if config.retained is not None and config.retained not in names:
        close = difflib.get_close_matches(config.retained, names, n=1)
        meant = f"did you mean {close[0]}? " if close else ""
        raise UsageError(
            f"{asked}: {meant}train.evaluation.retained names {', '.join(names) or 'no set'}; name one of those, or "
            f"add evaluation.retained.{config.retained} to train"
        )


def _check_metric(key: str, metric: str | None, rows: str, measured: Sequence[str]) -> None:
    if metric is None or metric in measured:
        return
    close = difflib.get_close_matches(metric, measured, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    raise UsageError(f"{key}={metric}: {meant}{rows} are measured by {', '.join(measured)}; choose one of those")


def _row(rows: Sequence[Row], role: str, metric: str | None, name: str | None) -> Row:
    candidates = [row for row in rows if row["role"] == role and (name is None or is_of(row["set"], name))]
    found = [row for row in candidates if metric in (None, row["metric"])]
    if not found:
        what = f"objective.target={metric}" if role == "target" else f"objective.retained={name}"
        what += f" by {metric}" if role == "retained" and metric is not None else ""
        have = ", ".join(f"{row['metric']} of {row['set']}" for row in rows if row["role"] == role) or "nothing"
        raise UsageError(f"{what}: the evaluation of a trial has no such row; it has {have}; choose one of them")
    return found[0]


def _worse_by(row: Row) -> float:
    sign = 1 if METRICS[row["metric"]] == "min" else -1
    return sign * (float(row["after"]) - float(row["before"]))
