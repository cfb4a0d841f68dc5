"""The demo: the documentation of Ray becomes an index of four shards, and two questions are answered from it.

Guaranteed: it runs the same commands that a user types, shows each before it runs, and stops at the first that fails.
"""

from __future__ import annotations

import shlex
import sys
import time

from cluster import cli

INDEX = "docs"
COMMANDS = (
    f"ingest pydoc:ray pydoc:pyarrow --index {INDEX} --shards 4",
    f'ask "How do I run a function on every batch of a dataset?" --index {INDEX}',
    f'ask "How does Ray Serve scale the number of replicas?" --index {INDEX}',
)
NEXT = (
    (f"tandem search 'placement group strategies' --index {INDEX} -k 3", "hits with their scores a stage"),
    (f"tandem ask 'Who painted the Mona Lisa?' --index {INDEX}", "what the corpus does not answer"),
    (f"tandem index info {INDEX}", "what the snapshot is made of"),
    ("tandem ingest ~/notes --index notes", "your own documents"),
)


def main() -> int:
    """Run the commands; returns the exit code of the first that fails, else 0."""
    started = time.monotonic()
    for command in COMMANDS:
        before = time.monotonic()
        print(f"\n$ tandem {command}", flush=True)
        code = cli.run(shlex.split(command))
        if code:
            return code
        print(f"[{time.monotonic() - before:.1f} s]", flush=True)
    print(f"\nThe demo took {time.monotonic() - started:.1f} s. What to type next (after 'source .venv/bin/activate'):")
    width = max(len(command) for command, _ in NEXT)
    for command, meaning in NEXT:
        print(f"  {command:<{width}}  {meaning}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
