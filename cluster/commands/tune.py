"""`tandem tune --config FILE`: search for hyper-parameters, and write out the best configuration."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cluster.settings import Command, show
from ray_jobs.train.tune.config import TuneConfig

if TYPE_CHECKING:
    from ray_jobs.train.tune.summary import TuneSummary


class TuneCommand(TuneConfig, Command):
    """Search for hyper-parameters: trials of the training job, the bad ones stopped early, the best written out."""


def run(command: TuneCommand) -> None:
    """Run the search and print its table."""
    from ray_jobs import progress
    from ray_jobs.train.tune import job

    config = TuneConfig.model_validate(command.model_dump(include=set(TuneConfig.model_fields), exclude_unset=True))
    summary = job.run(config, progress.for_terminal())
    if command.json_output:
        show(summary.model_dump_json(indent=1))
        return
    _table(summary)
    show("\n".join(summary.lines()))


def _table(summary: TuneSummary) -> None:
    head, cells = summary.head(), summary.cells()
    if not cells:
        return
    if not sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
        for row in (head, *cells):
            show("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in head:
        table.add_column(name, overflow="fold")
    for place, row in enumerate(cells):
        style = "bold" if place == 0 and summary.best is not None else "dim" if row[1] != "finished" else ""
        table.add_row(*(Text(text) for text in row), style=style)
    Console().print(table)
