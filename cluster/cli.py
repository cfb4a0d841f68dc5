"""The `tandem` command: a table of commands, and how every one of them ends.

Guaranteed: exit code 0 for success, 2 for bad usage, 1 for a failure, 130 when interrupted; a failure that the user can
act on is one line on standard error (a filter adds two that show the place). A traceback is a defect (or TANDEM_DEBUG
is set).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from ray_jobs.errors import TandemError, UsageError
from ray_jobs.storage import explain_os_error

COMMANDS: dict[str, tuple[str, str]] = {
    "ingest": ("IngestCommand", "a corpus to a published snapshot of an index"),
    "search": ("SearchCommand", "one query, or a file of queries as a job"),
    "ask": ("AskCommand", "a cited answer"),
    "serve": ("ServeCommand", "answer over HTTP: search, cited answers, a page"),
    "delete": ("DeleteCommand", "documents out of the next snapshot of an index"),
    "index": ("IndexCommand", "list, info, verify, dead-letters, report, compact, rollback, gc: look after snapshots"),
    "prepare": ("PrepareCommand", "training rows checked, deduplicated and split, with a card"),
    "mine": ("MineCommand", "hard negatives for prepared rows, from an index"),
    "train": ("TrainCommand", "fine-tune a model on prepared data, or go on with it"),
    "tune": ("TuneCommand", "search for the hyper-parameters of a fine-tuning run"),
    "models": ("ModelsCommand", "list, info, merge, export: look after models"),
}
_STILL_LIVE = "what was live is live, 'tandem index list' shows it"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    try:
        return _run(arguments)
    except TandemError as error:
        if os.environ.get("TANDEM_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as stopped:
        # A job that can go on says how.
        print(f"interrupted; {str(stopped) or _STILL_LIVE}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe has gone; Python would complain once more while it closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # Wrapped by Ray it would be one of Ray's errors, with their stacks; those are defects.
        if os.environ.get("TANDEM_DEBUG") or error.errno is None:
            raise
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {place}{explain_os_error(error)}", file=sys.stderr)
        return TandemError.exit_code


def _run(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"tandem {version('tandem')}")
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        raise UsageError(f"tandem {name}: no such command; expected one of {', '.join(COMMANDS)}; see 'tandem --help'")
    from cluster import settings

    module = import_module(f"cluster.commands.{name}")
    module.run(settings.read(getattr(module, COMMANDS[name][0]), arguments[1:], name))
    return 0


def _help() -> str:
    lines = ["usage: tandem COMMAND ...", "", "Retrieval-augmented generation and fine-tuning, in tandem, on Ray.", ""]
    lines += [f"  {name:<8} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [*lines, "", "'tandem COMMAND --help' lists what a command takes; every one takes --json and --config FILE."]
    )


if __name__ == "__main__":
    main()
