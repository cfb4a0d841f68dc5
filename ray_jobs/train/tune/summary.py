"""What a search has found, as a table and in words.

Guaranteed: trials that ran to their end come before those that were stopped, and those before the ones that failed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from ray_jobs.train.tune.dimensions import Point
from ray_jobs.train.tune.objective import Mode
from ray_jobs.train.tune.trials import Evaluation, State

PLACES = {"finished": 0, "stopped": 1, "failed": 2}


class Row(BaseModel):
    """One trial that has ended."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trial: int
    state: State
    value: float | None
    gain: float | None
    forgotten: float | None
    within_limit: bool  # False: it forgot more than the objective allows
    point: Point
    step: int
    steps: int
    seconds: float
    reason: str
    run: str
    metrics: dict[str, float]
    evaluations: tuple[Evaluation, ...]


class TuneSummary(BaseModel):
    """The outcome of a search."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    objective: str
    mode: Mode
    metric: str  # what trials were compared by while they ran
    best: int | None  # number of the trial; None: none ran to its end
    best_config: str | None  # file for 'tandem train --config'
    report: str
    complete: bool  # False: it was cut short, and the same command goes on
    left_open: int  # trials that were begun and cut
    impossible: int  # points that were drawn and could not be
    importance: dict[str, float]
    logarithmic: tuple[str, ...]  # keys that were searched by order of magnitude
    seconds: float
    hint: str = ""  # what would make the next search better
    trials: tuple[Row, ...]  # the best first

    def head(self) -> list[str]:
        """The columns of the table."""
        # Of one of them alone the value says as much.
        weighed = any(row.gain is not None and row.forgotten is not None for row in self.trials)
        return [
            "trial",
            "state",
            "value",
            *(["gain", "forgotten"] if weighed else []),
            *short_names(self.keys),
            "step",
            "s",
        ]

    @property
    def keys(self) -> list[str]:
        """What was searched."""
        return list(self.trials[0].point) if self.trials else []

    def cells(self) -> list[list[str]]:
        """The rows of the table, as texts."""
        weighed = "gain" in self.head()
        return [
            [
                str(row.trial),
                row.state if row.within_limit else f"{row.state}, forgot too much",
                _number(row.value),
                *([_number(row.gain), _number(row.forgotten)] if weighed else []),
                *(shown(row.point[key]) for key in self.keys),
                f"{row.step}/{row.steps}",
                f"{row.seconds:.1f}",
            ]
            for row in self.trials
        ]

    def lines(self) -> list[str]:
        """What came of it, below the table."""
        states = [row.state for row in self.trials]
        counted = ", ".join(f"{states.count(state)} {state}" for state in PLACES if state in states)
        lines = [f"{self.name}: {len(states)} trials ({counted or 'none'}) by {self.objective} ({self.mode}imised)"]
        if self.impossible:
            lines.append(f"{self.impossible} points were drawn and left out: their values are impossible together")
        if not self.complete:
            lines.append(f"cut short, {self.left_open} trials under way; run the same command to go on")
        lines += [f"trial {row.trial} failed: {row.reason}" for row in self.trials if row.state == "failed"]
        if self.best is not None:
            lines.append(f"best is trial {self.best}: tandem train --config {self.best_config}")
        elif states:
            lines.append("no trial ran to its end: there is no best configuration")
        return [*lines, *([self.hint] if self.hint else []), f"report: {self.report}"]


def short_names(keys: Sequence[str]) -> list[str]:
    """The last parts of dotted keys, where they are enough to tell them apart."""
    last = [key.rsplit(".", 1)[-1] for key in keys]
    return [name if last.count(name) == 1 else key for name, key in zip(last, keys, strict=True)]


def shown(value: Any) -> str:
    """A value of the space as people read it."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"
