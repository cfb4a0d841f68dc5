"""Runs of fine-tuning in this process, by one worker and without Ray."""

from __future__ import annotations

from typing import Any

from train_runs import Alone, plan_of
from transformers import TrainerCallback

from ray_jobs.storage import open_storage
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.worker import work


class Killed(Exception):
    """What stands for the end of a worker."""


class KillAfter(TrainerCallback):  # type: ignore[misc]
    """Ends the worker when a step has been logged."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step >= self.step:
            raise Killed


def train(config: TrainConfig, *callbacks: TrainerCallback) -> None:
    """Train, or go on; what a killed worker leaves stays."""
    work(Alone(), plan_of(config), callbacks)


def events(config: TrainConfig) -> dict[str, list[tuple[int, float]]]:
    """The scalars of a run, as TensorBoard reads them: step and value, in the order of the files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = open_storage(config.store).uri + "/" + plan_of(config).run + "/tensorboard"
    found = EventAccumulator(folder, size_guidance={"scalars": 0})
    found.Reload()
    return {tag: [(one.step, one.value) for one in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
