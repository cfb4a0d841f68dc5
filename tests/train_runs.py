"""Runs of fine-tuning on real workers of Ray Train, many in one group: a group takes longer to start than they take."""

from __future__ import annotations

import gc
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from processes import of_this_run
from transformers import TrainerCallback
from waiting import wait_for

from ray_jobs.models.embedder_config import Precision
from ray_jobs.storage import Storage, open_storage
from ray_jobs.train import job, under_way
from ray_jobs.train.checkpoints import Checkpoint, Checkpoints
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.on_ray import RaySession
from ray_jobs.train.plan import Plan
from ray_jobs.train.record import ATTEMPTS
from ray_jobs.train.worker import work

DEADLINE_SECONDS = 240.0
SHARDED_WHOLLY: dict[str, object] = {"stage": 3, "persistence_threshold": 0}
"""Networks this small would else be kept whole by every worker."""


@dataclass(frozen=True)
class Stretch:
    """A run, or its first steps."""

    config: TrainConfig
    stop_after: int | None = None
    rows: Path | None = None  # folder for the rows that each worker is dealt
    precision: Precision | None = None  # told by the plan, so that machines that are slow at it run it too


class StopAfter(TrainerCallback):  # type: ignore[misc]
    """Stops after a step as if the run ended there."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> Any:
        control.should_training_stop = state.global_step >= self.step
        return control


class Poison(TrainerCallback):  # type: ignore[misc]
    """Makes a weight no number, before or after a step."""

    def __init__(self, before: int | None = None, after: int | None = None) -> None:
        self.before, self.after = before, after

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step + 1 == self.before:
            self.poison(given["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step == self.after:
            self.poison(given["model"])

    def poison(self, model: Any) -> None:
        next(model.parameters()).data.fill_(float("nan"))


class RecordRows(TrainerCallback):  # type: ignore[misc]
    """Writes down the rows that this worker is dealt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        dealt = [row for batch in given["train_dataloader"] for row in batch["input_ids"].tolist()]
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{args.process_index}.json").write_text(json.dumps(dealt))


def settings(method: str, base: Path, data: Path, store: Path, name: str, **changes: Any) -> TrainConfig:
    """A small run; `changes` are merged into its nested keys."""
    chosen: dict[str, Any] = {
        "method": method,
        "base": str(base),
        "data": str(data),
        "store": str(store),
        "name": name,
        "optimisation": {
            "global_batch": 8,
            "micro_batch": 2,
            "max_steps": 8,
            "learning_rate": 0.003,
            "warmup": 0,
            "weight_decay": 0.1,
            "schedule": "constant",
            "precision": "float32",
        },
        "sequence": {"max_length": 32},
        "checkpoints": {"every_steps": 4, "log_every_steps": 1},
        "evaluation": {"test": False},
    }
    for key, value in changes.items():
        chosen[key] = {**chosen.get(key, {}), **value} if isinstance(value, dict) else value
    return TrainConfig.model_validate(chosen)


def toy(base: Path, data: Path, store: Path, name: str, **changes: Any) -> TrainConfig:
    """A run that learns the toy task whole, from each word to its successor, all weights or (with `lora`) an adapter.

    Rates and scale are such that a change in the last digit of a weight grows less than a hundredfold to the end: two
    runs may be compared.
    """
    rate = 0.005 if changes.get("lora") else 0.002
    long = {
        "optimisation": {"global_batch": 16, "micro_batch": 8, "max_steps": 100, "learning_rate": rate},
        "checkpoints": {"every_steps": 25, "max_failures": 1},
    }
    return settings("sft", base, data, store, name, **{**long, **changes})


def train_together(stretches: Sequence[Stretch], workers: int) -> None:
    """Run all of them, one after the other, on one group of workers."""
    from ray import cloudpickle
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    os.environ.update(under_way.RAY_TRAIN)
    # Workers do not find the modules of tests.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    storage = open_storage(stretches[0].config.store)
    plans = [(stretch, _planned(stretch, storage)) for stretch in stretches]
    folder = Path(storage.uri) / "ray"
    TorchTrainer(
        _loop,
        train_loop_config={"plans": plans},
        scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(storage_path=str(folder), name=f"group-{len(list(folder.glob('*')))}"),
    ).fit()


def _planned(stretch: Stretch, storage: Storage) -> Plan:
    plan = job.make_plan(stretch.config, storage)
    return plan if stretch.precision is None else replace(plan, precision=stretch.precision)


def _loop(arguments: dict[str, Any]) -> None:
    session = RaySession()
    for stretch, plan in arguments["plans"]:
        callbacks: list[TrainerCallback] = []
        if stretch.stop_after is not None:
            callbacks.append(StopAfter(stretch.stop_after))
        if stretch.rows is not None:
            callbacks.append(RecordRows(stretch.rows))
        work(session, plan, tuple(callbacks))
        gc.collect()


class Alone:
    """The only worker of a run, in this process: no Ray, no peers."""

    rank = local_rank = 0
    world_size = 1

    def show(self, metrics: Mapping[str, float]) -> None:
        pass

    def report(self, metrics: Mapping[str, float]) -> None:
        pass


def train_alone(config: TrainConfig, *callbacks: TrainerCallback, **changed: Any) -> TrainConfig:
    """Run it in this process, with `changed` in its plan; returns it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        work(Alone(), replace(plan_of(config), **changed), callbacks)
    gc.collect()
    return config


def wait_until(found: Callable[[], object]) -> None:
    """Poll until `found` returns something true, for as long as a run may take."""
    wait_for(found, DEADLINE_SECONDS)


def ray_workers() -> list[psutil.Process]:
    """The workers of Ray Train of this test run's own cluster."""
    return of_this_run("RayTrainWorker")


def plan_of(config: TrainConfig) -> Plan:
    return job.make_plan(config, open_storage(config.store))


def attempts(config: TrainConfig) -> list[dict[str, Any]]:
    """The groups of workers that have trained a run, the first one first, each with the step at which it began."""
    storage = open_storage(config.store)
    found = [json.loads(storage.read(item.key)) for item in storage.list(f"{plan_of(config).run}/{ATTEMPTS}")]
    return sorted(found, key=lambda one: (str(one["began"]), int(one["step"])))


def went_on(config: TrainConfig) -> bool:
    """Whether every group of workers but the first began at a later step than the one before it."""
    begun = [one["step"] for one in attempts(config)]
    return len(begun) > 1 and begun[0] == 0 and begun == sorted(set(begun))


def outcome(config: TrainConfig) -> dict[str, Any]:
    """What the run has left when it was finished."""
    found: dict[str, Any] = json.loads(open_storage(config.store).read(plan_of(config).finished))
    return found


def losses(config: TrainConfig) -> dict[int, float]:
    """The loss of each step of a finished run."""
    return {entry["step"]: entry["loss"] for entry in outcome(config)["history"] if "loss" in entry}


def evaluations(config: TrainConfig) -> dict[int, float]:
    """The loss on the validation rows at each evaluation of a finished run."""
    return {entry["step"]: entry["eval_loss"] for entry in outcome(config)["history"] if "eval_loss" in entry}


def checkpoints(config: TrainConfig) -> list[Checkpoint]:
    """The complete checkpoints of a run."""
    return Checkpoints(open_storage(config.store), plan_of(config).run).complete()


def reopen(config: TrainConfig) -> None:
    """Make a run that was stopped look like one that was lost."""
    open_storage(config.store).delete(plan_of(config).finished)
