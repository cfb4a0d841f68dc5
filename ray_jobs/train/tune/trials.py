"""The trials of a search, as the store keeps them: what was begun, what came of it.

    tune/NAME/IDENTITY/trials/0003/begun.json     the point, before the trial starts
    tune/NAME/IDENTITY/trials/0003/ended.json     its outcome, once

Guaranteed: what has ended is not run again by the same search, and what was begun and has not ended is run before
anything new. Not guaranteed: that two drivers with the same search at once do not disturb each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ray_jobs.errors import CorruptError
from ray_jobs.storage import Storage
from ray_jobs.train.tune.dimensions import Point
from ray_jobs.train.tune.objective import Objective, Score
from ray_jobs.train.tune.proposals import Told

State = Literal["finished", "stopped", "failed"]
R = TypeVar("R", bound="_Record")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Begun(_Record):
    """A trial that was started."""

    number: int
    point: Point
    run: str  # its run's folder in the store
    impossible: int = 0  # points that were drawn before it and cannot be
    adopted: bool = False  # the run was finished before the search: it is not the search's to remove


class Evaluation(_Record):
    """What one evaluation during training found."""

    step: int
    share: float  # of the steps of the trial
    value: float  # of the metric that trials are compared by while they run
    seconds: float  # since the trial began, in the attempt that came so far


class Ended(_Record):
    """What came of a trial."""

    number: int
    state: State
    score: Score | None  # None: it failed, or was stopped and what decides is only known at the end
    step: int
    steps: int  # of the whole run; 0: it never got so far
    metrics: dict[str, float] = {}
    evaluations: tuple[Evaluation, ...] = ()
    rows: tuple[dict[str, Any], ...] = ()  # of evaluation.json
    seconds: float = 0.0
    reason: str = ""  # why it failed


class Trial(_Record):
    """A trial of the search, begun and perhaps ended."""

    begun: Begun
    ended: Ended | None = None

    @property
    def number(self) -> int:
        """Its number, from 0."""
        return self.begun.number

    def told(self, objective: Objective) -> Told | None:
        """What whoever proposes points learns from it; None while it runs."""
        ended = self.ended
        if ended is None:
            return None
        evaluations = tuple((entry.step, objective.aligned(entry.value)) for entry in ended.evaluations)
        if ended.state == "stopped":
            value = evaluations[-1][1] if evaluations else None
            return Told(self.begun.point, value, evaluations=evaluations, stopped=True)
        if ended.score is None:
            return Told(self.begun.point, None)
        return Told(self.begun.point, ended.score.value, ended.score.excess, evaluations)


class Trials:
    """The trials of one search."""

    def __init__(self, storage: Storage, folder: str) -> None:
        self._storage = storage
        self._folder = f"{folder}/trials"
        self._found: dict[int, Trial] = {trial.number: trial for trial in self._stored()}

    def __iter__(self) -> Iterator[Trial]:
        return iter([self._found[number] for number in sorted(self._found)])

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, number: int) -> Trial:
        return self._found[number]

    def begin(self, begun: Begun) -> None:
        """Keep that a trial starts."""
        self._storage.create(f"{self._folder}/{begun.number:04d}/begun.json", begun.model_dump_json(indent=1).encode())
        self._found[begun.number] = Trial(begun=begun)

    def end(self, ended: Ended) -> None:
        """Keep what came of it; of two outcomes the first counts."""
        if self._found[ended.number].ended is not None:
            return
        self._storage.create(f"{self._folder}/{ended.number:04d}/ended.json", ended.model_dump_json(indent=1).encode())
        self._found[ended.number] = Trial(begun=self._found[ended.number].begun, ended=ended)

    @property
    def free(self) -> int:
        """The lowest number that no trial has: the next one, or that of a folder that was deleted."""
        return next(number for number in count() if number not in self._found)

    @property
    def ended(self) -> list[Trial]:
        """Those that have come to an end, by number."""
        return [trial for trial in self if trial.ended is not None]

    @property
    def open(self) -> list[Trial]:
        """Those that were begun and have not ended, by number."""
        return [trial for trial in self if trial.ended is None]

    def _stored(self) -> Iterator[Trial]:
        keys = [item.key for item in self._storage.list(self._folder)]
        for key in keys:
            if (found := re.fullmatch(r"(.*/\d+)/begun\.json", key)) is None:
                continue
            end = f"{found[1]}/ended.json"
            yield Trial(begun=self._read(Begun, key), ended=self._read(Ended, end) if end in keys else None)

    def _read(self, kind: type[R], key: str) -> R:
        try:
            return kind.model_validate_json(self._storage.read(key))
        except ValidationError as error:
            reason = " ".join(str(error).split())[:200]
            raise CorruptError(
                f"{self._storage.uri}/{key}: not the record of a trial ({reason}); delete its folder"
            ) from None
