"""What to try next: points of the space, drawn by Optuna, at random, or from a grid.

Guaranteed: a point is proposed at most once and is possible; the n-th proposal depends on the seed, on n and, for
Optuna, on the trials told before it, so that a search that goes on does not draw its first points again. Not
guaranteed: the same trials by Optuna with another number of them at once: what is known when a point is drawn differs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ray_jobs.train.tune.dimensions import Choice, Dimension, Int, LogInt, LogUniform, Point, Uniform, identity
from ray_jobs.train.tune.space import Space

if TYPE_CHECKING:
    import optuna

_ATTEMPTS = 300  # to draw a point that is possible and new, before the space counts as exhausted


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a point; all values are best high or low as those of the search are."""

    point: Point
    value: float | None  # None: the trial failed
    excess: float = 0.0
    evaluations: tuple[tuple[int, float], ...] = ()  # step, value of the metric that trials are compared by
    stopped: bool = False  # early: value is that of its last evaluation


@dataclass(frozen=True, slots=True)
class Proposal:
    """A point to try, and how many impossible ones were drawn before it."""

    point: Point
    impossible: int


class Proposals(Protocol):
    """Where trials come from."""

    def next(self, number: int) -> Proposal | None:
        """The point of trial `number`; None where there is none left."""
        ...

    def hold(self, point: Point) -> None:
        """Do not propose a point that a trial has already, and that is not told yet."""
        ...

    def tell(self, told: Told) -> None:
        """Take note of what became of a point."""
        ...


def proposals(
    search: Literal["optuna", "random", "grid"], space: Space, mode: Literal["min", "max"], seed: int
) -> Proposals:
    """The source of points of that name; raises UsageError for a grid without end."""
    if search == "grid":
        return GridProposals(space.grid())
    return DrawnProposals(space, mode, seed, learns=search == "optuna")


class GridProposals:
    """Every point of a grid, in order."""

    def __init__(self, points: Iterable[Point]) -> None:
        self._points = list(points)
        self._known: set[str] = set()

    def __len__(self) -> int:
        return len(self._points)

    def next(self, number: int) -> Proposal | None:
        """The next point that was neither proposed, held nor told."""
        for point in self._points:
            if identity(point) not in self._known:
                self._known.add(identity(point))
                return Proposal(point, 0)
        return None

    def hold(self, point: Point) -> None:
        """Not to be proposed again."""
        self._known.add(identity(point))

    def tell(self, told: Told) -> None:
        """Not to be proposed again."""
        self.hold(told.point)


class DrawnProposals:
    """Points drawn by one of Optuna's samplers."""

    def __init__(self, space: Space, mode: Literal["min", "max"], seed: int, learns: bool) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = space
        self._seed = seed
        self._learns = learns
        self.study = optuna.create_study(direction="maximize" if mode == "max" else "minimize")
        self._distributions = {key: _distribution(dimension) for key, dimension in space.dimensions.items()}
        self._known: set[str] = set()
        self._open: dict[str, optuna.Trial] = {}

    def next(self, number: int) -> Proposal | None:
        """Draw until a point is possible and new."""
        impossible = 0
        for attempt in range(_ATTEMPTS):
            self.study.sampler = self._sampler(number, attempt)
            trial = self.study.ask(self._distributions)
            point = {key: self._value(key, drawn) for key, drawn in trial.params.items()}
            is_new = identity(point) not in self._known
            if is_new and self._space.config_at(point) is not None:
                self._known.add(identity(point))
                self._open[identity(point)] = trial
                return Proposal(point, impossible)
            impossible += is_new
            self._known.add(identity(point))
            self._close(trial)
        return None

    def hold(self, point: Point) -> None:
        """Not to be proposed again; the sampler learns nothing from it."""
        self._known.add(identity(point))

    def tell(self, told: Told) -> None:
        """Add the outcome to what the sampler learns from."""
        import optuna

        self._known.add(identity(told.point))
        if (proposed := self._open.pop(identity(told.point), None)) is not None:
            self._close(proposed)
        value = told.value if told.value is not None and math.isfinite(told.value) else None
        state = optuna.trial.TrialState.PRUNED if told.stopped else optuna.trial.TrialState.COMPLETE
        ended = optuna.trial.create_trial(
            params={key: self._drawn(key, value) for key, value in told.point.items()},
            distributions=self._distributions,
            state=optuna.trial.TrialState.FAIL if value is None else state,
            value=value,
            intermediate_values=dict(told.evaluations),
        )
        ended.set_constraint("excess", told.excess)
        self.study.add_trial(ended)

    def _close(self, trial: optuna.Trial) -> None:
        import optuna

        self.study.tell(trial, state=optuna.trial.TrialState.FAIL)

    def _sampler(self, number: int, attempt: int) -> optuna.samplers.BaseSampler:
        import optuna

        text = f"{self._seed}/{number}/{attempt}"
        seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")
        if not self._learns:
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed)

    def _value(self, key: str, drawn: Any) -> Any:
        match self._space.dimensions[key]:
            case Choice(values=values):
                return values[drawn]
            case Uniform(step=float()) as steps:
                return steps.at(drawn)
            case dimension:
                return dimension.tidy(drawn)

    def _drawn(self, key: str, value: Any) -> Any:
        match self._space.dimensions[key]:
            case Choice(values=values):
                return values.index(value)
            case Uniform(step=float()) as steps:
                return steps.number(value)
            case _:
                return value


def importance(space: Space, mode: Literal["min", "max"], told: Iterable[Told]) -> dict[str, float]:
    """Share of the differences between finished trials that each key explains (fANOVA), the largest first."""
    import optuna

    source = DrawnProposals(space, mode, seed=0, learns=False)
    for entry in told:
        source.tell(entry)
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(source.study, evaluator=evaluator))


def _distribution(dimension: Dimension) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match dimension:
        case Choice():
            # By place: Optuna takes true for 1, and no lists.
            return CategoricalDistribution(tuple(range(len(dimension.values))))
        case Int():
            # It warns of an end that no step leads to.
            return IntDistribution(dimension.low, dimension.grid()[-1], step=dimension.step)
        case LogInt():
            return IntDistribution(dimension.low, dimension.high, log=True)
        case Uniform(step=float()):
            # By number: a sum of steps is no longer a step once it is rounded.
            return IntDistribution(0, dimension.last)
        case Uniform():
            return FloatDistribution(dimension.low, dimension.high)
        case LogUniform():
            return FloatDistribution(dimension.low, dimension.high, log=True)
