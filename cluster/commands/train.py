"""`tandem train --config FILE`: one fine-tuning run, or the rest of it."""

from __future__ import annotations

from pathlib import Path

from cluster.settings import Command, show
from ray_jobs.train.config import TrainConfig


class TrainCommand(TrainConfig, Command):
    """Fine-tune a base on prepared data and publish it as a model of the store; stopped, the same command goes on."""


def run(command: TrainCommand) -> None:
    """Run the job and print what came of it."""
    from ray_jobs import progress
    from ray_jobs.train import job

    config = TrainConfig.model_validate(command.model_dump(include=set(TrainConfig.model_fields)))
    summary = job.run(_anchored(config), progress.for_terminal())
    show(summary.model_dump_json(indent=1) if command.json_output else "\n".join(summary.lines()))


def _anchored(config: TrainConfig) -> TrainConfig:
    """The same run with absolute paths: workers stand in another folder, and wherever the command is typed it is one.

    A name that is no file here stays a name.
    """
    places = {key: Path(getattr(config, key)).expanduser() for key in ("base", "data")}
    return config.model_copy(update={key: str(path.absolute()) for key, path in places.items() if path.exists()})
