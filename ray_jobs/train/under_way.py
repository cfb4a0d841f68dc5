"""A run under way: groups of workers of Ray Train, one after the other, until one has come to the end.

Guaranteed: a lost worker or machine costs the steps since the last checkpoint, and `checkpoints.max_failures` of them
cost no more; what no group can mend ends the run; a group that finds no room is waited for and says so; when this
process is asked to stop, the workers are gone before it goes on. Not guaranteed: how soon a lost machine is noticed,
which is Ray's to say.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ray_jobs.beside import Beside
from ray_jobs.errors import TandemError, first_line
from ray_jobs.progress import Progress, Stage
from ray_jobs.runtime import ClusterSize, beside_this_process, cluster_size, raise_if_interrupted
from ray_jobs.storage import Storage, new_id
from ray_jobs.train import on_ray, sharing
from ray_jobs.train.allocator import ENVIRONMENT
from ray_jobs.train.board import Board, Seen, stop
from ray_jobs.train.config import WorkersConfig
from ray_jobs.train.failures import never_placed, raise_unless_lost, unshared_by
from ray_jobs.train.memory import memory_remedy
from ray_jobs.train.plan import Plan
from ray_jobs.train.room import gpus_of, lacking

if TYPE_CHECKING:
    from ray.train import UserCallback

RAY_TRAIN = {
    # Starting a worker imports for a while where several share few cores.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
    # Between two looks of the controller at its workers: so late it sees that one is lost.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # A process more for each group; it tells workers that their machine is to go, which none of them asks.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
# With fewer workers the run goes on anyway: after a machine is lost Ray first takes it for there, and waits in vain.
_ELASTIC = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60"}
_GIVEN = frozenset(os.environ)
"""What the user has set stays."""
_LOOK_SECONDS = 0.5
_PARTING_SECONDS = 60.0  # until a group whose workers are gone has told so
# Workers wait so long for one that prepares rows or a checkpoint for its machine; Ray's half an hour is too short.
_PATIENCE_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class Hooks:
    """What whoever starts a run adds to it, without changing what it learns."""

    callbacks: tuple[UserCallback, ...] = ()
    """Told by Ray Train of every report."""
    publish: bool = True
    """False: the run and its checkpoints are all that is left; nothing appears among the models."""


class Run:
    """One run under way, on workers that may be lost."""

    def __init__(
        self,
        plan: Plan,
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
                reason = first_line(error)
                if restarts < allowed:
                    stage.note(f"workers were lost ({reason}); others go on from the last checkpoint")
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
        tried = 0
        while True:
            error = self._attempt(f"{number}-{tried}", workers, stage, notes)
            if error is None or not never_placed(error):
                return error
            if (told := lacking(workers, cluster_size(), elastic=self._is_elastic)) is not None:
                stage.note(told)
            tried += 1

    def _attempt(self, number: str, workers: WorkersConfig, stage: Stage, notes: str) -> BaseException | None:
        """One group of workers, until it is done or lost; the error that ended it, if any."""
        import ray
        from ray.train import FailureConfig, RunConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        settings = {**RAY_TRAIN, **(_ELASTIC if self._is_elastic else {})}
        os.environ.update({key: value for key, value in settings.items() if key not in _GIVEN})
        board = ray.remote(num_cpus=0, scheduling_strategy=beside_this_process())(Board).remote()
        trainer = TorchTrainer(
            on_ray.train_loop,
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
                worker_runtime_env={"env_vars": ENVIRONMENT},
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
