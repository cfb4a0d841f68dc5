"""One worker of a run: takes its place, prepares the trainer of the method, resumes, trains, reports.

It knows no Ray: it talks to a `Session`, and on_ray.py has Ray's. Guaranteed: the trainer's workers are
Ray's, all of them, or the run stops before the first step (a trainer that does not see its peers would train as many
models as there are workers); a run goes on at the very step of its newest checkpoint, with the very next row.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ray_jobs.errors import TandemError
from ray_jobs.storage import Storage, new_id, open_storage
from ray_jobs.train import batches, resume, sharing, universal
from ray_jobs.train.checkpoints import Checkpoint, Checkpoints
from ray_jobs.train.fit import explained
from ray_jobs.train.memory import memory_explained
from ray_jobs.train.methods import Place, Task, method_of, metric_of
from ray_jobs.train.methods.tally import Tallies
from ray_jobs.train.plan import Plan, base_folder, start_of
from ray_jobs.train.starting import begin_as
from ray_jobs.train.training_data import splits_of
from ray_jobs.train.zero import DeepSpeedConfig, deepspeed_config

if TYPE_CHECKING:
    import torch
    from transformers import Trainer, TrainerCallback

T = TypeVar("T")
_SHARED_MEMORY_OP = "deepspeed_shm_comm"


class Session(Protocol):
    """What a worker must know of its peers, and whom it reports to."""

    rank: int
    world_size: int
    local_rank: int

    def show(self, metrics: Mapping[str, float]) -> None:
        """Let whoever looks on see how far the run is; returns at once."""
        ...

    def report(self, metrics: Mapping[str, float]) -> None:
        """Tell the driver; every worker calls it equally often, and may wait for the others and for the driver."""
        ...


def work(session: Session, plan: Plan, callbacks: tuple[TrainerCallback, ...] = ()) -> None:
    """Train, from the newest checkpoint or from the start, and write what came of it.

    Raises UnsharedStepError where so many workers cannot share a step, UsageError, ModelError or StorageError where
    base, data, configuration and store do not fit, CorruptError for rows that have changed, TandemError for a loss that
    is no number and for a lack of memory.
    """
    # Before anything that takes time: another group is to take over.
    sizes = sharing.batches_of(plan.config, session.world_size)
    from transformers import PrinterCallback

    from ray_jobs.train.record import Record
    from ray_jobs.train.steps import ReportProgress, SaveCheckpoints, Tokens, watch

    config = plan.config
    take_place(session, plan)
    storage = open_storage(plan.store)
    checkpoints = Checkpoints(storage, plan.run)
    attempt = _agreed(session, new_id())
    place = Place(plan.device, plan.precision, session.rank, session.world_size, _first_on_machine(session))
    with storage.scratch() as scratch, memory_explained(config):
        point = _resume_point(session, plan, checkpoints, place, attempt)
        saving = SaveCheckpoints(
            checkpoints, _draft(plan, session, point), attempt, metric_of(config), config.checkpoints.keep, barrier
        )
        tokens = Tokens(session.world_size)
        task = task_of(
            plan,
            storage,
            scratch,
            sizes,
            place,
            deepspeed=deepspeed_config(config.zero, load_universal=point is not None and point.universal),
            callbacks=(
                Record(storage, plan.run, attempt, point.step if point else 0, scratch),
                saving,
                ReportProgress(session.show, session.report, tokens),
                *callbacks,
            ),
        )
        with explained(task):
            trainer = method_of(config.method).trainer(task)
        check_world(trainer, session)
        trainer.remove_callback(PrinterCallback)  # it would print what is shown and kept otherwise
        watch(trainer, tokens, saving)
        if config.optimisation.disable_dropout:
            disable_dropout(trainer.model)
        if point is None and (start := start_of(storage, plan)) is not None:
            begin_as(trainer.model, start)
        if point is not None and point.universal:
            universal.repair(trainer)
        trainer.train(resume_from_checkpoint=str(point.folder) if point else None)
        if session.rank == 0:
            storage.create(plan.finished, _outcome(trainer, plan, saving.seconds, task.tallies))
        barrier()
        if point is not None and session.local_rank == 0:
            checkpoints.forget()
            if point.universal:
                universal.sweep(point.folder)
        barrier()


def task_of(
    plan: Plan,
    storage: Storage,
    output: Path,
    sizes: batches.Batches,
    place: Place,
    deepspeed: DeepSpeedConfig | None = None,
    callbacks: tuple[TrainerCallback, ...] = (),
) -> Task:
    """What the method of this run is given on this machine.

    Raises ModelError, UsageError or CorruptError where base or data are not those of the plan.
    """
    # Rows are fetched and hashed once a machine: those who wait find them there.
    place.first_on_machine(lambda: splits_of(storage, plan))
    return Task(
        config=plan.config,
        base=base_folder(storage, plan),
        base_revision=plan.base_revision,
        splits=splits_of(storage, plan),
        output=output,
        batches=sizes,
        place=place,
        deepspeed=deepspeed,
        callbacks=callbacks,
    )


def take_place(session: Session, plan: Plan) -> None:
    """Take the device that the plan says, and join the peers."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if plan.device == "cpu":
        # Ray hides no GPUs from a worker that asked for none.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["DS_ACCELERATOR"] = "cpu"
    import transformers
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    if not os.environ.get("TANDEM_DEBUG"):
        transformers.logging.set_verbosity_error()
    # An earlier run of this process may be in memory still: transformers would shard this one's networks, too.
    unset_hf_deepspeed_config()
    os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)
    if plan.config.zero.uses_deepspeed:
        _join_deepspeed(plan.device)


def check_world(trainer: Trainer, session: Session) -> None:
    """Raise TandemError where the trainer sees other peers than the session has."""
    found = (trainer.args.world_size, trainer.args.process_index)
    if found != (session.world_size, session.rank):
        raise TandemError(
            f"the trainer is worker {found[1]} of {found[0]}, not {session.rank} of {session.world_size}; it would "
            "train a model of its own; report this defect with the versions of ray, transformers and accelerate"
        )


def disable_dropout(network: torch.nn.Module) -> None:
    """Let nothing be dropped at random: neither by modules nor by the rates that networks hand to functions."""
    import torch

    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def barrier() -> None:
    """Wait for all peers, where there are any."""
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def _join_deepspeed(device: str) -> None:
    import deepspeed

    if not os.environ.get("TANDEM_DEBUG"):
        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # An operation for inference that training never uses: to compile it takes a minute on first use, and to find out
    # which ones could be compiled takes seconds on every start. Named here, nothing is looked for.
    deepspeed.ops.__compatible_ops__ = {_SHARED_MEMORY_OP: False}
    deepspeed.init_distributed(dist_backend="nccl" if device == "cuda" else "gloo", verbose=False)


def _first_on_machine(session: Session) -> Callable[[Callable[[], object]], None]:
    def first(make: Callable[[], object]) -> None:
        if session.local_rank == 0:
            make()
        barrier()

    return first


def _agreed(session: Session, value: T) -> T:
    """The first worker's `value`, on all of them."""
    import torch.distributed

    if session.world_size == 1:
        return value
    values = [value]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]


def _resume_point(
    session: Session, plan: Plan, checkpoints: Checkpoints, place: Place, attempt: str
) -> resume.ResumePoint | None:
    converted = universal.folder_of(plan.store, plan.run, attempt)
    place.first_on_machine(lambda: universal.sweep(converted))
    # The first worker chooses for all: while it sweeps, others would list what goes.
    found = None
    if session.rank == 0:
        checkpoints.sweep()
        found = resume.newest(checkpoints, plan.expected)
    found = _agreed(session, found)
    if found is None:
        return None
    return resume.fit(found, checkpoints, session.world_size, session.rank, converted, place.first_on_machine)


def _draft(plan: Plan, session: Session, point: resume.ResumePoint | None) -> Checkpoint:
    zero = plan.config.zero
    return Checkpoint(
        key="",
        step=point.step if point else 0,
        workers=session.world_size,
        engine="deepspeed" if zero.uses_deepspeed else "ddp",
        stage=zero.stage,
        metric=None,
        metrics={},
        method=plan.config.method,
        base_revision=plan.base_revision,
        data_hash=plan.data_hash,
        files={},
        precision=plan.precision,
    )


def _outcome(trainer: Trainer, plan: Plan, pauses: list[float], tallies: Tallies) -> bytes:
    history: list[dict[str, Any]] = trainer.state.log_history
    found = {
        "steps": trainer.state.global_step,
        "history": history,
        "checkpoint_seconds": pauses,
        "precision": plan.precision,
        "rows": tallies.to_dict(),
    }
    return json.dumps(found, indent=1).encode()
