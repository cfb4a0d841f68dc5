"""`tandem prepare INPUT... --name NAME`: rows to a data set that can be trained on."""

from __future__ import annotations

import json

from pydantic import Field
from pydantic_settings import CliPositionalArg

from cluster.settings import Command, show
from ray_jobs.train.data.config import PrepareConfig


class PrepareCommand(PrepareConfig, Command):
    """Check, clean, deduplicate and split training rows, once, with a card of what was found.

    Rows are messages, prompt/completion, prompt/chosen/rejected, prompt/completion/label, query/positive/negative or
    question/passage/answers.
    """

    inputs: CliPositionalArg[tuple[str, ...]] = Field(
        (), description="JSON Lines or Parquet: files, folders, globs, URIs"
    )


def run(command: PrepareCommand) -> None:
    """Run the job and print what it found."""
    from ray_jobs import progress
    from ray_jobs.train import prepare

    config = PrepareConfig.model_validate(command.model_dump(include=set(PrepareConfig.model_fields)))
    summary = prepare.run(config, progress.for_terminal())
    if command.json_output:
        show(json.dumps(summary.to_dict(), ensure_ascii=False, indent=1))
    else:
        show("\n".join(summary.lines()))
