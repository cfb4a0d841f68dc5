"""`tandem ingest` against whole pipelines of other frameworks: a file of documents in, a persistent index out.

Each contender runs by itself, in a process of its own, Tandem before and after the others. What one has come to is kept
in the cache for a day: a benchmark that was stopped goes on. Tandem's job also does what they do not (an index of
words, a ledger, checks, a commit). Not measured: quality, see `quality`; more than one machine.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpora import CACHE, ROOT, Passage, scifact
from pipelines import OVERLAP, PEERS, TOKENS
from table import Cell, Table

FULL, QUICK = 5_000, 40  # documents
_DAY = 86_400.0
FIRST, LAST = "tandem, before the others", "tandem, after the others"


@dataclass(frozen=True)
class Outcome:
    """One run."""

    chunks: int
    seconds: float
    load: float  # seconds of loading the model, and of starting Ray


def measure(quick: bool) -> list[Table]:
    """Run everyone."""
    passages = scifact("test").passages[: QUICK if quick else FULL]
    with tempfile.TemporaryDirectory() as name:
        corpus = Path(name) / "corpus.jsonl"
        corpus.write_text("".join(_line(passage) for passage in passages), encoding="utf-8")
        found = {contender: _once(contender, corpus, len(passages)) for contender in (FIRST, *PEERS, LAST)}
    return [_table(len(passages), found)]


def _line(passage: Passage) -> str:
    return json.dumps({"id": passage.id, "title": passage.title, "text": passage.text}) + "\n"


def _once(contender: str, corpus: Path, count: int) -> Outcome:
    """What it came to, unless it is known since less than a day."""
    place = CACHE / "pipelines" / f"{contender}-{count}.json"
    if place.exists() and time.time() - place.stat().st_mtime < _DAY:
        return Outcome(**json.loads(place.read_text()))
    print(f"{contender} ...", file=sys.stderr, flush=True)
    folder = corpus.parent / contender.partition(",")[0]
    made = _tandem(corpus, folder) if contender in (FIRST, LAST) else _peer(contender, corpus, folder)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(made))
    return Outcome(**made)


def _peer(name: str, corpus: Path, folder: Path) -> dict[str, Any]:
    program = Path(__file__).with_name("pipelines.py")
    found: dict[str, Any] = json.loads(_run(str(program), name, str(corpus), str(folder)).splitlines()[-1])
    return found


def _tandem(corpus: Path, folder: Path) -> dict[str, Any]:
    cut = ("--chunking.max-tokens", str(TOKENS), "--chunking.overlap-tokens", str(OVERLAP))
    started = time.perf_counter()
    told = _run("-m", "cluster.cli", "ingest", str(corpus), "--index", "docs", "--store", str(folder), *cut, "--json")
    whole = time.perf_counter() - started
    summary = json.loads(told)
    seconds = sum(seconds for stage, seconds in summary["seconds"].items() if stage != "start")
    return {"chunks": summary["counts"]["chunks"], "seconds": seconds, "load": whole - seconds}


def _run(*arguments: str) -> str:
    """What a Python of its own prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, check=True, env=environment, text=True)
    return done.stdout


def _table(documents: int, found: dict[str, Outcome]) -> Table:
    own = statistics.mean([found[FIRST].seconds, found[LAST].seconds])
    chunks = statistics.mean([found[FIRST].chunks, found[LAST].chunks])
    rows: list[list[Cell]] = []
    for name, outcome in found.items():
        faster = outcome.seconds / own
        a_chunk = (outcome.seconds / outcome.chunks) / (own / chunks)
        rows.append(
            [
                name,
                f"{outcome.chunks:,}",
                f"{outcome.seconds:.1f}",
                f"{documents / outcome.seconds:.1f}",
                f"{faster:.2f}",
                f"{a_chunk:.2f}",
                f"{outcome.load:.1f}",
            ]
        )
    return Table(
        f"Pipelines: {documents:,} abstracts of SciFact, chunks of at most {TOKENS} tokens",
        ["", "chunks", "seconds", "documents/s", "Tandem is faster by", "a chunk, by", "start s (not in the rates)"],
        rows,
        notes=(_NOTE,),
    )


_NOTE = (
    "From the first line read to the index on disk; every framework cuts by its own splitter, so that chunks differ."
)
