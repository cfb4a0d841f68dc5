"""The benchmarks: `python tests/bench/run.py [--only PART,PART...] [--quick]`; `--help` lists the parts.

Writes tests/bench/results.json and results.md; a part that is run again takes its own place in them. `--quick` checks
that everything runs, at sizes too small to mean anything, and writes to .cache only. What needs a GPU is a program of
its own, training_gpu.py.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from pathlib import Path

import readme
from corpora import CACHE, MissingDataError, data_folder
from table import ELSEWHERE, TITLES, stamped, update

FOLDER = Path(__file__).resolve().parent
PARTS = [name for name in TITLES if name not in ELSEWHERE]


def main() -> int:
    """Run the chosen benchmarks; 0 on success, 2 for bad usage or data that is not there."""
    parser = argparse.ArgumentParser(description="Measure Tandem on real text.")
    parser.add_argument("--only", default=",".join(PARTS), help=f"comma-separated: {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, to check that it runs")
    options = parser.parse_args()
    chosen = options.only.split(",")
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        parser.error(f"--only {unknown[0]}: expected some of {', '.join(PARTS)}")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        data_folder()
        for name in chosen:
            started = time.monotonic()
            print(f"{name} ...", file=sys.stderr, flush=True)
            tables = importlib.import_module(name).measure(options.quick)
            place, stem = (CACHE, "quick") if options.quick else (FOLDER, "results")
            written = update([stamped(name, tables)], place, stem)
            if not options.quick:
                readme.show(FOLDER.parent.parent / "README.md", written.with_suffix(".json"))
            print(f"{name}: {time.monotonic() - started:.0f} s, see {written}", file=sys.stderr, flush=True)
    except MissingDataError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
