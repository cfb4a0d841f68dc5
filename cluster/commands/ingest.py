"""`tandem ingest SOURCE... --index NAME`: a corpus to a published snapshot."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import CliPositionalArg

from cluster.paths import anchored
from cluster.settings import Command, show
from ray_jobs.ingest.config import IngestConfig


class IngestCommand(IngestConfig, Command):
    """Embed a corpus and publish it as a snapshot of an index."""

    sources: CliPositionalArg[tuple[str, ...]] = Field((), description="files, folders, globs, URIs, or pydoc:PACKAGE")


def run(command: IngestCommand) -> None:
    """Run the job and print what it did."""
    from ray_jobs import progress
    from ray_jobs.ingest import job
    from ray_jobs.ingest.dry_run import dry_run

    config = IngestConfig.model_validate(command.model_dump(include=set(IngestConfig.model_fields)))
    config = config.model_copy(update={"embedder": anchored(config.embedder)})
    if config.dry_run:
        plan = dry_run(config)
        show(plan.model_dump_json(indent=1) if command.json_output else "\n".join(plan.lines()))
        return
    summary = job.run(config, progress.for_terminal())
    show(summary.model_dump_json(indent=1) if command.json_output else "\n".join(summary.lines()))
