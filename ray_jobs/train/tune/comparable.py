"""Whether the trials of a search can be compared by its objective: what is searched must not change the yardstick.

Guaranteed: a key that changes what the objective, or the metric by which trials are stopped, measures is refused before
any trial, by what each method says of its keys. Not guaranteed: that a metric which stays comparable is a good one.
"""

from __future__ import annotations

from collections.abc import Collection

from ray_jobs.errors import UsageError
from ray_jobs.train.evaluation.judges import metrics_of
from ray_jobs.train.methods import Method, Shift
from ray_jobs.train.tune.objective import Objective


def check_comparable(searched: Collection[str], method: Method, goal: Objective, stops: bool) -> None:
    """Raise UsageError for a key over which trials are not told apart by `goal`.

    `stops` says whether trials that fall behind are stopped, by the metric of the validation.
    """
    for shift in method.shifts:
        if shift.key not in searched:
            continue
        spared = goal.metric in dict(shift.spares)
        if not goal.config.from_evaluation:
            if not spared:
                raise UsageError(_refusal(shift, goal.metric, _remedy(shift, method)))
        elif not shift.spares_evaluation:
            raise UsageError(_refusal(shift, "the evaluation", f"set train.{shift.key}"))
        elif stops and not spared:
            by = f"{goal.metric}, by which the scheduler stops trials"
            raise UsageError(_refusal(shift, by, f"set scheduler=none, or train.{shift.key}"))


def _refusal(shift: Shift, by: str, remedy: str) -> str:
    return (
        f"space.{shift.key} cannot be searched by {by}: where it changes, {shift.why}, so that trials cannot be "
        f"compared; {remedy}"
    )


def _remedy(shift: Shift, method: Method) -> str:
    ways = []
    if shift.spares:
        metric, mode = shift.spares[0]
        ways.append(f"set objective.metric={metric} and objective.mode={mode}")
    if shift.spares_evaluation:
        chief = metrics_of(method.name, method.kinds[0])[0]
        ways.append(f"compare by the evaluation: objective.target={chief} with scheduler=none")
    return ", or ".join([*ways, f"set train.{shift.key}"])
