"""A search under way: which trial comes next, which is stopped, what is kept of each.

Knows no Ray. Guaranteed: what was begun and did not end comes first; what has ended is written down before anything
else follows from it; of all runs that the search made, only that of the best finished trial keeps its files, and runs
that were finished before the search are left alone. Not guaranteed: that a run whose workers are still being stopped is
gone at once; `released` removes what they leave.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray_jobs.errors import TandemError
from ray_jobs.progress import Stage
from ray_jobs.storage import LocalStorage, Storage
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.tune.halving import Halving
from ray_jobs.train.tune.objective import Objective
from ray_jobs.train.tune.past import evaluations
from ray_jobs.train.tune.proposals import Proposals
from ray_jobs.train.tune.space import Space
from ray_jobs.train.tune.trials import Begun, Ended, Evaluation, State, Trial, Trials

_FAILURES = 3  # of the first trials, all of them: the fault is not in the point


@dataclass(frozen=True, slots=True)
class Rungs:
    """Where trials are stopped: `halving` in shares of the run, or in steps; `max_steps` ends every trial."""

    halving: Halving | None
    in_steps: bool = False
    max_steps: int | None = None


class Campaign:
    """The trials of one search, from the first to the last."""

    def __init__(
        self,
        space: Space,
        objective: Objective,
        proposals: Proposals,
        trials: Trials,
        rungs: Rungs,
        storage: Storage,
        limit: int,
        run_of: Callable[[TrainConfig], str],
    ) -> None:
        """`run_of` names the folder of a run in the store; `limit` is how many trials there may be."""
        self._space = space
        self._objective = objective
        self._proposals = proposals
        self._trials = trials
        self._rungs = rungs
        self._storage = storage
        self._limit = limit
        self._run_of = run_of
        self._stage: Stage | None = None
        self._started: dict[int, float] = {}  # running trials
        self._seen: dict[int, list[Evaluation]] = {}
        self._metrics: dict[int, dict[str, float]] = {}  # of each running trial's best evaluation
        self._shown: dict[int, float] = {}
        self._removed: set[str] = set()
        self._reopened = [trial.number for trial in trials.open]
        self.fault: TandemError | None = None
        """Why the search cannot go on."""
        for trial in trials:
            # Before anything is drawn: what was cut may still run while the next trial begins.
            self._proposals.hold(trial.begun.point)
            self._learn(trial)
        self.sweep()

    @property
    def running(self) -> int:
        """How many trials run."""
        return len(self._started)

    @property
    def left(self) -> int:
        """How many trials have not ended, at most."""
        return max(0, self._limit - len(self._trials.ended))

    def show(self, stage: Stage) -> None:
        """Report what happens to `stage`, whose total is the number of trials left."""
        self._stage = stage

    def next(self) -> tuple[int, TrainConfig] | None:
        """The next trial, written down as begun; None where there is none left."""
        if self.fault is not None:
            return None
        if is_reopened := bool(self._reopened):
            number = self._reopened.pop(0)
            config = self._space.config_at(self._trials[number].begun.point)
            if config is None:
                raise TandemError(f"trial {number}: its values are impossible now; delete its folder among the trials")
        else:
            if len(self._trials) >= self._limit:
                return None
            number = self._trials.free
            proposal = self._proposals.next(number)
            config = None if proposal is None else self._space.config_at(proposal.point)
            if proposal is None or config is None:
                return None
            run = self._run_of(config)
            adopted = self._storage.exists(f"{run}/finished.json")
            begun = Begun(number=number, point=proposal.point, run=run, impossible=proposal.impossible, adopted=adopted)
            self._trials.begin(begun)
        self._started[number] = time.monotonic()
        self._seen[number] = []
        self._tell()
        if is_reopened and not self._recall(number):
            self.released(number)
            return self.next()
        return number, config

    def _recall(self, number: int) -> bool:
        """Take note of what a trial had found before it was cut, as if it came now; False: it has ended by that."""
        past = evaluations(self._storage, self._trials[number].begun.run)
        known = [entry for entry in past if self._objective.metric in entry.metrics]
        return all(self.evaluated(number, entry.step, entry.steps, entry.metrics) for entry in known)

    def evaluated(self, number: int, step: int, steps: int, metrics: Mapping[str, float]) -> bool:
        """Take note of an evaluation of a running trial; False: it is to be stopped, and has ended."""
        if self._trials[number].ended is not None:
            return False
        value = self._objective.running(metrics)
        share = step / max(steps, 1)
        seen = self._seen[number]
        if not seen or self._is_better(value, seen):
            self._metrics[number] = dict(metrics)
        seen.append(Evaluation(step=step, share=share, value=value, seconds=self._seconds(number)))
        self._advance(number, share)
        if self._rungs.max_steps is not None and step >= self._rungs.max_steps:
            self._end(number, "finished", step, steps, metrics=self._metrics[number])
            return False
        halving = self._rungs.halving
        if halving is None or step >= steps:
            return True
        if halving.passed(number, step if self._rungs.in_steps else share, value):
            return True
        self._end(number, "stopped", step, steps, metrics=self._metrics[number])
        return False

    def finished(
        self,
        number: int,
        steps: int,
        metrics: Mapping[str, float],
        rows: Sequence[Mapping[str, Any]],
        history: Iterable[Mapping[str, float]],
    ) -> None:
        """A trial has come to its end; `metrics` are those of its best checkpoint, `history` is its log."""
        self._seen[number] = [
            Evaluation(
                step=int(entry["step"]),
                share=entry["step"] / max(steps, 1),
                value=entry[self._objective.metric],
                seconds=self._seconds(number),
            )
            for entry in history
            if self._objective.metric in entry
        ]
        try:
            self._end(number, "finished", steps, steps, metrics=dict(metrics), rows=tuple(map(dict, rows)))
        except TandemError as error:
            self.failed(number, str(error))

    def failed(self, number: int, reason: str) -> None:
        """A trial has failed; the others go on, unless all have failed so far."""
        seen = self._seen[number]
        step = seen[-1].step if seen else 0
        self._end(number, "failed", step, round(step / seen[-1].share) if seen and seen[-1].share else 0, reason=reason)
        ended = [trial.ended.state for trial in self._trials if trial.ended is not None]
        if len(ended) >= min(_FAILURES, self._limit) and set(ended) == {"failed"}:
            self.fault = TandemError(
                f"all of the first {len(ended)} trials failed, the last one with: {reason}; put that right, delete "
                "their folders among the trials, and run the same command again"
            )

    def released(self, number: int) -> None:
        """A trial no longer runs, whether it has ended or not; its workers are gone."""
        self._started.pop(number, None)
        self.sweep()
        self._tell()

    @property
    def best(self) -> Trial | None:
        """The best of the trials that ran to their end; None before the first."""
        scored = [
            (self._objective.order(trial.ended.score), trial.number, trial)
            for trial in self._trials
            if trial.ended is not None and trial.ended.state == "finished" and trial.ended.score is not None
        ]
        return min(scored, key=lambda item: item[:2])[2] if scored else None

    def sweep(self) -> None:
        """Remove the runs of trials that have ended and are not the best."""
        best = self.best
        stay = {
            trial.begun.run
            for trial in self._trials
            if trial.begun.adopted or trial.ended is None or trial.number in self._started
        }
        if best is not None:
            stay.add(best.begun.run)
        for trial in self._trials:
            if trial.begun.run not in stay | self._removed:
                remove(self._storage, trial.begun.run)
                self._removed.add(trial.begun.run)

    def _end(
        self,
        number: int,
        state: State,
        step: int,
        steps: int,
        metrics: dict[str, float] | None = None,
        rows: tuple[dict[str, Any], ...] = (),
        reason: str = "",
    ) -> None:
        """Of two outcomes the first counts: a trial that heard too late that it is stopped runs to its end."""
        if self._trials[number].ended is not None:
            return
        by_validation = state == "stopped" and not self._objective.config.from_evaluation
        scored = state == "finished" or by_validation
        self._trials.end(
            Ended(
                number=number,
                state=state,
                score=self._objective.score(metrics or {}, rows) if scored else None,
                step=step,
                steps=steps,
                metrics=metrics or {},
                evaluations=tuple(self._seen[number]),
                rows=rows,
                seconds=self._seconds(number),
                reason=reason,
            )
        )
        trial = self._trials[number]
        if (told := trial.told(self._objective)) is not None:
            self._proposals.tell(told)
        self._advance(number, 1.0)

    def _learn(self, trial: Trial) -> None:
        """Take over what an earlier run of this search has found out."""
        if (told := trial.told(self._objective)) is not None:
            self._proposals.tell(told)
        if trial.ended is None or self._rungs.halving is None:
            return
        for entry in trial.ended.evaluations:
            self._rungs.halving.passed(trial.number, entry.step if self._rungs.in_steps else entry.share, entry.value)

    def _is_better(self, value: float, seen: Sequence[Evaluation]) -> bool:
        values = [entry.value for entry in seen]
        return value >= max(values) if self._objective.metric_mode == "max" else value <= min(values)

    def _seconds(self, number: int) -> float:
        return round(time.monotonic() - self._started[number], 3)

    def _advance(self, number: int, share: float) -> None:
        gone = max(0.0, share - self._shown.get(number, 0.0))
        self._shown[number] = self._shown.get(number, 0.0) + gone
        if self._stage is not None:
            self._tell()
            self._stage.advance(gone)

    def _tell(self) -> None:
        if self._stage is None:
            return
        states = [trial.ended.state for trial in self._trials.ended if trial.ended is not None]
        values: dict[str, float] = {"done": len(states), "of": self._limit, "running": self.running}
        values |= {state: states.count(state) for state in ("stopped", "failed") if state in states}
        best = self.best
        if best is not None and best.ended is not None and best.ended.score is not None:
            values["best"] = best.ended.score.value
        self._stage.show(**values)


def remove(storage: Storage, folder: str) -> None:
    """Remove all below `folder`, first what says that something is complete."""
    keys = [item.key for item in storage.list(folder)]
    for key in sorted(keys, key=lambda key: (not key.endswith(".json"), key)):
        storage.delete(key)
    if isinstance(storage, LocalStorage):
        import shutil

        shutil.rmtree(storage.root / folder, ignore_errors=True)
