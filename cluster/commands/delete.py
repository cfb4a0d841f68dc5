"""`tandem delete ID... --index NAME`: documents out of the next snapshot of an index."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import CliPositionalArg

from cluster.settings import Command, show
from ray_jobs.ingest.delete import DeleteConfig


class DeleteCommand(DeleteConfig, Command):
    """Delete documents by their ids, or by a filter on their metadata."""

    ids: CliPositionalArg[tuple[str, ...]] = Field((), description="ids of documents")


def run(command: DeleteCommand) -> None:
    """Run the job and print what it did."""
    from ray_jobs import progress
    from ray_jobs.ingest import delete

    config = DeleteConfig.model_validate(command.model_dump(include=set(DeleteConfig.model_fields)))
    summary = delete.run(config, progress.for_terminal())
    show(summary.model_dump_json(indent=1) if command.json_output else "\n".join(summary.lines()))
