"""`tandem mine --data NAME --index NAME --name NAME`: hard negatives into a new prepared data set."""

from __future__ import annotations

import json

from cluster.paths import anchored
from cluster.settings import Command, show
from ray_jobs.train.data.mine_config import MineConfig


class MineCommand(MineConfig, Command):
    """Find passages that look right and are wrong, for every query of prepared rows, in an index.

    What comes out is a prepared data set with the same splits: to train a reranker or an embedder, or with --as qa a
    reader.
    """


def run(command: MineCommand) -> None:
    """Run the job and print what it found."""
    from ray_jobs import progress
    from ray_jobs.train import negatives

    config = MineConfig.model_validate(command.model_dump(include=set(MineConfig.model_fields), exclude_unset=True))
    config = config.model_copy(update={"embedder": config.embedder and anchored(config.embedder)})
    summary = negatives.run(config, progress.for_terminal())
    if command.json_output:
        show(json.dumps(summary.to_dict(), ensure_ascii=False, indent=1))
    else:
        show("\n".join(summary.lines()))
