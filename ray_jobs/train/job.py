"""The training job: resolve, plan, train on workers that may be lost, publish.

Guaranteed: a run is known by what it learns from and how, not by how many workers it has: the same command goes on
where it stopped, a finished run is not trained again, and a model appears in the store whole or not at all. A worker
that is lost costs the steps since the last checkpoint. Not guaranteed: that two drivers with the same command at once
do not disturb each other.
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from ray_jobs.beside import Beside
from ray_jobs.errors import ModelError, NotFoundError, TandemError, UsageError
from ray_jobs.models.adapter import ADAPTER_CONFIG
from ray_jobs.models.resolve import ResolvedModel, resolve
from ray_jobs.progress import Progress, SilentProgress, Stage
from ray_jobs.runtime import (
    ClusterSize,
    beside_this_process,
    cluster_size,
    raise_if_interrupted,
    session,
    terminated_as_interrupt,
)
from ray_jobs.storage import LocalStorage, Storage, new_id, open_storage
from ray_jobs.train import before_after, publish, report, sharing, worker
from ray_jobs.train.board import Board, Seen, stop
from ray_jobs.train.checkpoints import Checkpoints, best
from ray_jobs.train.config import TrainConfig, WorkersConfig
from ray_jobs.train.failures import never_placed, raise_unless_lost, unshared_by
from ray_jobs.train.hardware import of_this_machine, of_workers, precision_of, wanted_precision
from ray_jobs.train.identity import run_folder
from ray_jobs.train.memory import memory_remedy
from ray_jobs.train.methods import method_of, metric_of, tally
from ray_jobs.train.methods.rows import check_splits
from ray_jobs.train.room import check_room, gpus_of, lacking
from ray_jobs.train.starting import find_start
from ray_jobs.train.training_data import find_data, is_file, prepare_file, splits_of

if TYPE_CHECKING:
    from ray.train import UserCallback

_RAY_TRAIN = {
    # Starting a worker imports for a while where several share few cores.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
    # Between two looks of the controller at its workers: so late it sees that one is lost.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
}
# With fewer workers the run goes on anyway: after a machine is lost Ray first takes it for there, and waits in vain.
_ELASTIC = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60"}
_LOOK_SECONDS = 0.5
_PARTING_SECONDS = 60.0  # until a group whose workers are gone has told so
# Workers wait so long for one that prepares rows or a checkpoint for its machine; Ray's half an hour is too short.
_PATIENCE_SECONDS = 24 * 3600


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
        found = ", ".join(f"{key} {value:.4g}" for key, value in sorted(self.metrics.items()))
        how = f"trained in {self.seconds:.1f} s" if self.trained else "was finished before, nothing was trained"
        lost = f", {self.restarts} restarts" if self.restarts else ""
        told = [f"{self.name}: {self.steps} steps{lost}, {how}", f"best at step {self.best_step}: {found}"]
        return [*told, *self.rows, *self.measured, self.model or self.run, *([self.report] if self.report else [])]


@dataclass(frozen=True, slots=True)
class Hooks:
    """What whoever starts a run adds to it, without changing what it learns."""

    callbacks: tuple[UserCallback, ...] = ()
    """Told by Ray Train of every report."""
    publish: bool = True
    """False: the run and its checkpoints are all that is left; nothing appears among the models."""


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
            plan = placed(plan, cluster)
            restarts = _Run(plan, storage, cluster, progress, hooks).train()
    outcome = json.loads(storage.read(plan.finished))
    plan = replace(plan, precision=outcome["precision"])
    chosen = best(Checkpoints(storage, plan.run).complete(), metric_of(config)[1])
    if chosen is None:
        raise NotFoundError(
            f"{storage.uri}/{plan.run}: the run is finished and has no checkpoint; delete it to train anew"
        )
    with _interrupted(going_on):
        if before_after.missing(plan, storage, chosen):
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


def make_plan(config: TrainConfig, storage: Storage, prepared: str | None = None) -> worker.Plan:
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
    return worker.Plan(
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


def check_data(plan: worker.Plan, storage: Storage) -> None:
    """Raise UsageError for rows that the method cannot learn from, where it takes no download to know.

    Raises CorruptError for rows that are not those that were prepared.
    """
    if isinstance(storage, LocalStorage) or Path(plan.train).is_absolute():
        rows = splits_of(storage, plan)
        check_splits(plan.config, method_of(plan.config.method), rows.train, rows.validation)


class _Run:
    """One run under way, on workers that may be lost."""

    def __init__(
        self,
        plan: worker.Plan,
        storage: Storage,
        cluster: ClusterSize,
        progress: Progress,
        hooks: Hooks | None = None,
    ) -> None:
        self._hooks = hooks or Hooks()
        self._plan = plan
        self._storage = storage
        self._cluster = cluster
        self._progress = progress
        self._id = new_id()
        self._seen = Seen()

    def train(self) -> int:
        """Train to the end; returns how often it had to go on after workers were lost."""
        allowed = self._plan.config.checkpoints.max_failures
        # Ray's own notes on the run, of no use after it. Checkpoints take another way, past Ray, into the store.
        with tempfile.TemporaryDirectory(prefix="tandem-train-") as notes, self._progress.stage("train", 1) as stage:
            for restarts in range(allowed + 1):
                error = self._sharing(restarts, stage, notes)
                if error is None or self._storage.exists(self._plan.finished):
                    return restarts
                raise_unless_lost(error, self._plan.config)
                reason = _first_line(error)
        raise TandemError(
            f"checkpoints.max_failures={allowed}: workers were lost {allowed + 1} times ({reason}); run the same "
            f"command to go on from the last checkpoint, and if they lack memory: {memory_remedy(self._plan.config)}"
        )

    def _sharing(self, number: int, stage: Stage, notes: str) -> BaseException | None:
        """As `_attempt`, by as many workers as there is room for and can share a step.

        Ray takes any number of the range that it is given; a group that cannot share a step says so and ends at once.
        """
        workers = sharing.workers_of(self._plan.config)
        for narrowed in range(workers.most):
            error = self._in_room(f"{number}-{narrowed}", workers, stage, notes)
            many = None if error is None else unshared_by(error)
            if many is None:
                return error
            workers = sharing.workers_of(self._plan.config, below=many)
        raise AssertionError("a range of workers becomes smaller with each group that could not share a step")

    def _in_room(self, number: str, workers: WorkersConfig, stage: Stage, notes: str) -> BaseException | None:
        """As `_attempt`, again and again while there is no place for the workers; what is waited for is told."""
        for tried in itertools.count():
            error = self._attempt(f"{number}-{tried}", workers, stage, notes)
            if error is None or not never_placed(error):
                return error
            if (told := lacking(workers, cluster_size(), elastic=self._is_elastic)) is not None:
                stage.note(told)
        raise AssertionError("counting has no end")

    def _attempt(self, number: str, workers: WorkersConfig, stage: Stage, notes: str) -> BaseException | None:
        """One group of workers, until it is done or lost; the error that ended it, if any."""
        import ray
        from ray.train import FailureConfig, RunConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        for key, value in {**_RAY_TRAIN, **(_ELASTIC if self._is_elastic else {})}.items():
            os.environ.setdefault(key, value)
        board = ray.remote(num_cpus=0, scheduling_strategy=beside_this_process())(Board).remote()
        trainer = TorchTrainer(
            worker.train_loop,
            train_loop_config={"plan": self._plan, "board": board},
            torch_config=TorchConfig(timeout_s=_PATIENCE_SECONDS),
            scaling_config=self._scaling(workers),
            run_config=RunConfig(
                # Workers of several runs on one machine stand in folders of this name.
                name=f"{self._id}-{number}",
                storage_path=notes,
                # Whether to go on is decided here: an error of the user's would come again and again.
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
                callbacks=list(self._hooks.callbacks),
            ),
        )
        # Not in this thread: there Ray would take the signals that stop this job.
        fit = Beside(trainer.fit, "fit")
        try:
            over = False
            while not over:
                over = fit.wait(_LOOK_SECONDS)
                raise_if_interrupted()
                self._seen.advance(stage, ray.get(board.take.remote()))
        except BaseException:
            # Whoever goes on in this Ray session finds its CPUs free.
            try:
                stop(board, partial(ray.kill, no_restart=True))
            finally:
                # Whoever asks Ray for something once its session is over ends this process at once, without a word.
                fit.wait(_PARTING_SECONDS)
            raise
        return fit.error

    @property
    def _is_elastic(self) -> bool:
        workers = self._plan.config.workers
        return workers.least < workers.most

    def _scaling(self, workers: WorkersConfig) -> Any:
        from ray.train import ScalingConfig

        gpus = gpus_of(workers, self._cluster)
        return ScalingConfig(
            num_workers=workers.count if workers.max is None else (workers.least, workers.most),
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": workers.cpus_per_worker, **({"GPU": gpus} if gpus else {})},
        )


def _base(config: TrainConfig, storage: Storage) -> ResolvedModel:
    found = resolve(config.base, storage)
    if (found.path / ADAPTER_CONFIG).is_file():
        raise ModelError(f"base={config.base} is an adapter; merge it into its base first, or name that base")
    return found


def _anchored(config: TrainConfig) -> TrainConfig:
    """Base and start by absolute paths where they are folders: workers stand in another one."""
    changes: dict[str, Any] = {"base": _absolute(config.base)}
    if config.lora is not None and config.lora.start is not None:
        changes["lora"] = config.lora.model_copy(update={"start": _absolute(config.lora.start)})
    return config.model_copy(update=changes)


def _absolute(name: str) -> str:
    path = Path(name).expanduser()
    return str(path.absolute()) if path.is_dir() else name


def placed(plan: worker.Plan, cluster: ClusterSize) -> worker.Plan:
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


@contextmanager
def _interrupted(told: Callable[[], str]) -> Iterator[None]:
    """Make an interruption say what is kept and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(told()) from None


def _how_to_go_on(plan: worker.Plan, storage: Storage) -> str:
    if storage.exists(plan.finished):
        return "the run is trained and its checkpoints are kept: the same command measures and publishes it"
    found = Checkpoints(storage, plan.run).complete()
    if not found:
        return "there is no checkpoint yet: the same command begins anew"
    return f"the checkpoint of step {found[-1].step} is kept: the same command goes on from there"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
