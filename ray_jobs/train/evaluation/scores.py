"""What an evaluation finds: scores of rows before and after, and samples of what the model says.

A new kind of model is one file with a `Judge`, and one line in `judges.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np

from ray_jobs.train.evaluation.bootstrap import Average, Floats, change

Columns = Mapping[str, Sequence[Any]]
"""Rows of a prepared set as columns of equal length."""
Role = Literal["target", "retained"]

METRICS: dict[str, Literal["min", "max"]] = {
    "perplexity": "min",
    "token_kl": "min",
    "unwanted_ppl": "max",
    "reward_accuracy": "max",
    "ndcg@10": "max",
    "f1": "max",
    "exact_match": "max",
}
"""Every metric of an evaluation, and whether it is best low or high; token_kl is 0 before by its definition."""


@dataclass(frozen=True, slots=True)
class Scores:
    """One metric of one set: a score a row before and after, each (rows,), and what each row weighs."""

    metric: str
    before: Floats
    after: Floats
    weights: Floats | None = None
    average: Average = "mean"


@dataclass(frozen=True, slots=True)
class Sample:
    """What the model was asked, what was wanted, and what it said before and after."""

    prompt: str
    expected: str
    before: str
    after: str


class Judge(Protocol):
    """A model before and after, ready to be asked."""

    def scores(self, rows: Columns, kind: str) -> list[Scores]:
        """Each metric that rows of this kind allow; none where no row can be measured."""
        ...

    def samples(self, rows: Columns, kind: str, places: Sequence[int]) -> list[Sample]:
        """One sample for each of the rows at these few places that can be asked."""
        ...


def table_row(name: str, role: Role, scores: Scores, draws: int, seed: int) -> dict[str, Any]:
    """A row of evaluation.json: set, role, metric, before, after, delta, low, high, rows."""
    found = change(scores.before, scores.after, scores.weights, average=scores.average, draws=draws, seed=seed)
    return {"set": name, "role": role, "metric": scores.metric, **asdict(found)}


def chosen_rows(count: int, limit: int | None, seed: int) -> list[int]:
    """Places of the rows to measure, ascending: all, or `limit` of them, drawn by the seed."""
    if limit is None or limit >= count:
        return list(range(count))
    return sorted(int(place) for place in np.random.default_rng(seed).choice(count, size=limit, replace=False))


def taken(rows: Columns, places: Sequence[int]) -> dict[str, list[Any]]:
    """The rows at these places."""
    return {name: [values[place] for place in places] for name, values in rows.items()}
