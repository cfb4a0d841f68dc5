"""Asynchronous successive halving, the form that stops: who may go on past a rung, decided as each trial reaches it.

After Li et al., "A System for Massively Parallel Hyperparameter Tuning" (2020), in the variant that never pauses a
trial. Guaranteed: a trial is stopped only at a rung, and only where it is not among the best share of those that have
reached the rung so far; the first at a rung always goes on. Not guaranteed: that a trial that would have won late is
kept.
"""

from __future__ import annotations

from typing import Literal

Mode = Literal["min", "max"]


class Halving:
    """The rungs of a search, and what each trial had there."""

    def __init__(self, first: float, reduction_factor: float, mode: Mode) -> None:
        self._first = first
        self._factor = reduction_factor
        self._sign = 1 if mode == "max" else -1
        self._rungs: dict[int, dict[int, float]] = {}  # number of the rung -> trial -> its value there, best is high

    def passed(self, trial: int, progress: float, value: float) -> bool:
        """Take note of one evaluation; whether the trial goes on.

        `progress` grows from 0 in the unit of the first rung: a share of the run, or steps.
        """
        number = 0
        goes_on = True
        # A rung may be a hair above the share that it stands for: 0.1 x 3 is more than 0.3.
        while self._first * self._factor**number <= progress * (1 + 1e-9):
            rung = self._rungs.setdefault(number, {})
            if trial not in rung:
                rung[trial] = self._sign * value
                goes_on = goes_on and self._is_among_the_best(rung, rung[trial])
            number += 1
        return goes_on

    def _is_among_the_best(self, rung: dict[int, float], value: float) -> bool:
        kept = max(1, int(len(rung) / self._factor))
        return sum(other > value for other in rung.values()) < kept
