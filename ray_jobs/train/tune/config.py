"""What a user may set of a search for hyper-parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ray_jobs.train.tune.dimensions import Dimension

Search = Literal["optuna", "random", "grid"]
DEFAULT_TRIALS = 20


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AshaConfig(_Part):
    """Asynchronous successive halving: at each rung only the best share of the trials that reached it goes on."""

    grace: float = Field(0.25, gt=0, lt=1, description="share of its steps that every trial may run")
    grace_steps: int | None = Field(None, ge=1, description="the same in steps, in place of grace")
    reduction_factor: float = Field(
        3, gt=1, description="one trial of so many goes on, and the next rung is so many times as far"
    )
    max_steps: int | None = Field(
        None,
        ge=2,
        description="no trial runs further, and the best is trained to its end later; None: to the end of its run",
    )

    @model_validator(mode="after")
    def _pairs_that_cannot_be(self) -> Self:
        if self.grace_steps is not None and "grace" in self.model_fields_set:
            raise ValueError(f"grace={self.grace:g} with grace_steps={self.grace_steps}: both say the same; set one")
        if self.max_steps is not None and self.grace_steps is not None and self.grace_steps >= self.max_steps:
            raise ValueError(
                f"grace_steps={self.grace_steps} is not below max_steps={self.max_steps}: no trial could be stopped; "
                "lower grace_steps"
            )
        return self


class ObjectiveConfig(_Part):
    """What makes a trial the best: a metric of its validation, or what it gained and forgot by its evaluation."""

    metric: str | None = Field(None, description="of the validation rows, such as eval_loss; None: the method's own")
    mode: Literal["min", "max"] | None = Field(None, description="whether that metric is best low or high")
    target: str | None = Field(None, description="metric of the evaluation, before and after; None: its first one")
    retained: str | None = Field(None, description="the retained set of which little should be forgotten")
    retained_metric: str | None = Field(None, description="metric of that set, before and after; None: its first one")
    weight: float | None = Field(None, gt=0, description="value = gain on the target - weight * what is forgotten")
    max_loss: float | None = Field(None, ge=0, description="best gain of those that forget no more than this")

    @property
    def from_evaluation(self) -> bool:
        """Whether the evaluation after training decides, and not the validation during it."""
        return self.target is not None or self.retained is not None

    @model_validator(mode="after")
    def _pairs_that_cannot_be(self) -> Self:
        if (self.metric is None) != (self.mode is None):
            raise ValueError(f"metric={self.metric} with mode={self.mode}: expected both or neither; set both")
        if self.weight is not None and self.max_loss is not None:
            raise ValueError(f"weight={self.weight:g} with max_loss={self.max_loss:g}: expected one of them; drop one")
        if self.retained is not None and self.weight is None and self.max_loss is None:
            raise ValueError(
                f"retained={self.retained} without weight or max_loss: what is forgotten would not count; set "
                "weight (a price) or max_loss (a limit)"
            )
        if self.retained is None and (self.weight is not None or self.max_loss is not None):
            raise ValueError("weight or max_loss without retained: nothing to forget; name a retained set in retained")
        if self.retained is None and self.retained_metric is not None:
            raise ValueError(
                f"retained_metric={self.retained_metric} without retained: nothing to measure by it; name a retained "
                "set in retained"
            )
        if self.from_evaluation and self.metric is not None:
            raise ValueError(
                f"metric={self.metric} with target or retained: the best is chosen by validation or by evaluation; "
                "drop metric and mode, or target and retained"
            )
        return self


class TuneConfig(_Part):
    """A search: a training configuration, what of it is searched, and how."""

    train: dict[str, Any] | None = Field(None, description="the configuration of 'tandem train', less what is searched")
    train_config: Path | None = Field(
        None, description="YAML file to read it from, in place of train; the space replaces values of the file"
    )
    space: dict[str, Dimension] = Field(
        {},
        description="what is searched: optimisation.learning_rate: {type: loguniform, low: 1.0e-5, high: 1.0e-3}; "
        "types: uniform, loguniform, int, logint (low, high, step), choice (values)",
    )
    search: Search = Field("optuna", description="optuna: learns from trials (TPE); random; grid: every combination")
    trials: int | None = Field(
        None, ge=1, description=f"at most so many; None: {DEFAULT_TRIALS}, or every point of a grid"
    )
    parallel: int | None = Field(None, ge=1, description="trials at once; None: as many as the cluster has room for")
    scheduler: Literal["none"] | AshaConfig = Field(
        AshaConfig(), description="asha: stop trials that fall behind; none: run every trial to its end"
    )
    objective: ObjectiveConfig = ObjectiveConfig()
    time_budget_s: float | None = Field(
        None, gt=0, description="stop after so many seconds; the same command goes on with what was cut"
    )
    seed: int = Field(0, ge=0, description="of what is drawn from the space")

    @field_validator("scheduler", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {} if value == "asha" else value

    @model_validator(mode="after")
    def _pairs_that_cannot_be(self) -> Self:
        if (self.train is None) == (self.train_config is None):
            raise ValueError("expected one of train (keys of 'tandem train') and train_config (a file); set one")
        if not self.space:
            raise ValueError(
                "space is empty: nothing to search; name keys, as in "
                "'space: {optimisation.learning_rate: {type: loguniform, low: 1.0e-5, high: 1.0e-3}}'"
            )
        scheduler = self.scheduler
        if scheduler != "none" and scheduler.max_steps is not None and self.objective.from_evaluation:
            raise ValueError(
                f"scheduler.max_steps={scheduler.max_steps} with an objective from the evaluation: only a run that "
                "ends is evaluated; set train.optimisation.max_steps instead"
            )
        return self
