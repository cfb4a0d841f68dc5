"""The training job: resolve, plan, train on workers that may be lost, publish.

Guaranteed: a run is known by what it learns from and how, not by how many workers it has: the same command goes on
where it stopped, a finished run is not trained again, and a model appears in the store whole or not at all. A worker
that is lost costs the steps since the last checkpoint. Not guaranteed: that two drivers with the same command at once
do not disturb each other.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ray_jobs.errors import ModelError, NotFoundError, UsageError, first_line
from ray_jobs.models.adapter import ADAPTER_CONFIG
from ray_jobs.models.resolve import ResolvedModel, anchored, resolve
from ray_jobs.progress import Progress, SilentProgress
from ray_jobs.runtime import ClusterSize, session, terminated_as_interrupt
from ray_jobs.storage import LocalStorage, Storage, open_storage
from ray_jobs.train import before_after, publish, report, sharing
from ray_jobs.train.checkpoints import Checkpoints, best, of_validation
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.data_file import is_file, prepare_file
from ray_jobs.train.hardware import of_this_machine, of_workers, precision_of, wanted_precision
from ray_jobs.train.identity import run_folder
from ray_jobs.train.methods import method_of, metric_of, tally
from ray_jobs.train.methods.rows import check_splits
from ray_jobs.train.plan import Plan
from ray_jobs.train.room import check_room, gpus_of
from ray_jobs.train.starting import find_start
from ray_jobs.train.training_data import find_data, splits_of
from ray_jobs.train.under_way import Hooks, Run


class TrainSummary(BaseModel):
    """The outcome of one training job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    run: str
    model: str | None  # None: not published
    steps: int
    best_step: int
    metrics: dict[str, float]
    restarts: int
    trained: bool  # False: the run was finished before
    seconds: float
    rows: tuple[str, ...] = ()  # cut, left out or learned in part: a line a split, where there are any
    measured: tuple[str, ...] = ()  # before and after, a line a set and metric
    report: str = ""

    def lines(self) -> list[str]:
        """The summary as people read it."""
        found = ", ".join(f"{name} {value:.4g}" for name, value in of_validation(self.metrics).items())
        how = f"trained in {self.seconds:.1f} s" if self.trained else "was finished before, nothing was trained"
        lost = f", {self.restarts} restarts" if self.restarts else ""
        told = [f"{self.name}: {self.steps} steps{lost}, {how}", f"best at step {self.best_step}: validation {found}"]
        return [*told, *self.rows, *self.measured, self.model or self.run, *([self.report] if self.report else [])]


def run(config: TrainConfig, progress: Progress | None = None, hooks: Hooks | None = None) -> TrainSummary:
    """Train what `config` says, or go on with it, and publish the best checkpoint as `config.name`.

    Raises UsageError, NotFoundError or ModelError for what cannot be trained, CorruptError for rows that have changed
    since they were prepared, StorageError when the store refuses,
    ConflictError when the store has another model of that name, TandemError when training fails, KeyboardInterrupt when
    it is interrupted; checkpoints stay, and the same command goes on from the last.
    """
    started = time.monotonic()
    storage = open_storage(config.store)
    progress, hooks = progress or SilentProgress(), hooks or Hooks()
    with _interrupted(lambda: "what is prepared and trained is kept: the same command goes on"):
        data = prepare_file(config.data, storage, progress, config.base) if is_file(config.data) else config.data
        plan = make_plan(config, storage, data)
    if hooks.publish:
        publish.check_free(storage, config.name, [plan.run])
    going_on = partial(_how_to_go_on, plan, storage)
    restarts = 0
    trained = not storage.exists(plan.finished)
    if trained:
        check_data(plan, storage)
        # Ray handles signals its own way; what comes after its start counts.
        with _interrupted(going_on), session() as cluster, terminated_as_interrupt():
            plan = as_begun(placed(plan, cluster), storage)
            with _reported(plan, storage):
                restarts = Run(plan, storage, cluster, progress, hooks).train()
    outcome = json.loads(storage.read(plan.finished))
    plan = replace(plan, precision=outcome["precision"])
    chosen = best(Checkpoints(storage, plan.run).complete(), metric_of(config)[1])
    if chosen is None:
        raise NotFoundError(
            f"{storage.uri}/{plan.run}: the run is finished and has no checkpoint; delete it to train anew"
        )
    with _interrupted(going_on):
        if before_after.missing(plan, storage, chosen):
            report.write(plan, storage, chosen)  # measuring may fail
            with session() as cluster, terminated_as_interrupt():
                plan = replace(plan, device=of_workers(plan.config, cluster).device)
                before_after.measure(plan, storage, chosen, progress)
        model = publish.publish(plan, storage, chosen, before_after.rows(plan, storage)) if hooks.publish else None
        written = report.write(plan, storage, chosen)
        Checkpoints(storage, plan.run).forget()
    return TrainSummary(
        name=config.name,
        run=plan.run,
        model=model,
        steps=outcome["steps"],
        best_step=chosen.step,
        metrics=chosen.metrics,
        restarts=restarts,
        trained=trained,
        seconds=round(time.monotonic() - started, 3),
        rows=tally.lines(outcome),
        measured=before_after.lines(plan, storage),
        report=f"{storage.uri}/{written}",
    )


def make_plan(config: TrainConfig, storage: Storage, prepared: str | None = None) -> Plan:
    """Fix base and data once, for every worker; device and precision are those of this machine.

    `prepared` names the data that were prepared from the file `config.data`.
    """
    method_of(config.method)
    base = _base(config, storage)
    data = find_data(prepared or config.data, storage)
    config = _anchored(config).model_copy(update={"store": storage.uri})
    replayed = before_after.check(config, base.path, data.train, storage)
    hardware = of_this_machine(config)
    start = find_start(config, base.revision, storage)
    sources = [base.revision, data.hash, *([] if replayed is None else [replayed.sha256])]
    sources += [] if start is None else [start.revision]
    return Plan(
        config=config,
        store=storage.uri,
        run=run_folder(config, sources),
        base_revision=base.revision,
        data_hash=data.hash,
        train=data.train,
        validation=data.validation,
        device=hardware.device,
        precision=wanted_precision(config, hardware),
        replay=None if replayed is None else replayed.place,
        replay_hash=None if replayed is None else replayed.sha256,
        start_revision=None if start is None else start.revision,
        train_sha256=data.train_sha256,
        validation_sha256=data.validation_sha256,
    )


def check_data(plan: Plan, storage: Storage) -> None:
    """Raise UsageError for rows that the method cannot learn from, where it takes no download to know.

    Raises CorruptError for rows that are not those that were prepared.
    """
    if isinstance(storage, LocalStorage) or Path(plan.train).is_absolute():
        rows = splits_of(storage, plan)
        check_splits(plan.config, method_of(plan.config.method), rows.train, rows.validation)


def _base(config: TrainConfig, storage: Storage) -> ResolvedModel:
    found = resolve(config.base, storage)
    if (found.path / ADAPTER_CONFIG).is_file():
        raise ModelError(f"base={config.base} is an adapter; merge it into its base first, or name that base")
    return found


def _anchored(config: TrainConfig) -> TrainConfig:
    """Base and start by absolute paths where they are folders: workers stand in another one."""
    changes: dict[str, Any] = {"base": anchored(config.base)}
    if config.lora is not None and config.lora.start is not None:
        changes["lora"] = config.lora.model_copy(update={"start": anchored(config.lora.start)})
    return config.model_copy(update=changes)


def placed(plan: Plan, cluster: ClusterSize) -> Plan:
    """The plan on the hardware of this cluster's workers; raises UsageError where that lacks what was asked for."""
    config = plan.config
    check_room(sharing.workers_of(config), cluster)
    if config.lora is not None and config.lora.quantise != "none" and not gpus_of(config.workers, cluster):
        raise UsageError(
            f"lora.quantise={config.lora.quantise}: the workers have no GPU, and the library of quantised weights "
            "needs one; set lora.quantise=none"
        )
    hardware = of_workers(config, cluster)
    return replace(plan, device=hardware.device, precision=precision_of(config, hardware))


def as_begun(plan: Plan, storage: Storage) -> Plan:
    """The plan in the precision in which the run was begun: the machines of now may be of another kind."""
    found = Checkpoints(storage, plan.run).complete()
    precision = found[-1].precision if found else None
    return plan if precision is None else replace(plan, precision=precision)


@contextmanager
def _interrupted(told: Callable[[], str]) -> Iterator[None]:
    """Make an interruption say what is kept and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(told()) from None


@contextmanager
def _reported(plan: Plan, storage: Storage) -> Iterator[None]:
    """Leave a report of what there is where a run stops before its end; why it stopped counts for more than that."""
    try:
        yield
    except BaseException as error:
        with suppress(Exception):
            if found := Checkpoints(storage, plan.run).complete():
                why = "it was interrupted" if isinstance(error, KeyboardInterrupt) else first_line(error)
                report.write(plan, storage, found[-1], why)
        raise


def _how_to_go_on(plan: Plan, storage: Storage) -> str:
    if storage.exists(plan.finished):
        return "the run is trained and its checkpoints are kept: the same command measures and publishes it"
    found = Checkpoints(storage, plan.run).complete()
    if not found:
        return "there is no checkpoint yet: the same command begins anew"
    return f"the checkpoint of step {found[-1].step} is kept: the same command goes on from there"
