"""Does an ingest stay within its bounds as the corpus grows?

`tandem ingest` in a process of its own, with its own Ray, over ten and a hundred times as many documents: seconds a
document, bytes on disk, and the most anonymous memory that any process had, seen every SECONDS_BETWEEN_LOOKS: what the
system cannot take back, as it can pages of mapped files. The embedder is the fake one: what grows with a corpus is
everything else. Not measured: memory between two looks, several machines.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import psutil
from corpora import documentation
from table import Cell, Table

SECONDS_BETWEEN_LOOKS = 0.5
SHARD_BYTES = 64 << 20
WORKERS = ("ray::MapBatches", "ray::MapWorker", "ray::_map_task")
WORDS = [f"{a}{b}{c}" for a in ("ka", "mo", "ti", "ve", "bru") for b in ("len", "sar", "dim", "po") for c in "aeiou"]


@dataclass(frozen=True)
class Size:
    """How many documents, growing."""

    synthetic: tuple[int, ...]
    documentation: tuple[int, ...]


FULL = Size((10_000, 100_000, 1_000_000), (3_000, 30_000))
QUICK = Size((200, 2_000), (50, 500))


@dataclass
class Peaks:
    """The most anonymous memory that was seen, in bytes."""

    driver: int = 0
    worker: int = 0  # of any one
    ray: int = 0  # of Ray's own processes together


@dataclass(frozen=True)
class Grown:
    """One run."""

    documents: int
    chunks: int
    shards: int
    seconds: float  # of the job's stages, Ray's start apart
    source: int  # bytes
    stored: int  # bytes
    peaks: Peaks


def measure(quick: bool) -> list[Table]:
    """Run every size of both corpora."""
    size = QUICK if quick else FULL
    found = []
    for title, corpus, counts in (
        ("synthetic documents of 60 words", _synthetic, size.synthetic),
        ("pages of documentation", _pages, size.documentation),
    ):
        runs = []
        for count in counts:
            with tempfile.TemporaryDirectory() as folder:
                runs.append(_grown(Path(folder), corpus, count))
        found.append(_table(title, runs))
    return found


def _synthetic(count: int) -> Iterator[dict[str, object]]:
    chance = random.Random(0)
    for number in range(count):
        yield {"id": f"d{number}", "text": " ".join(chance.choices(WORDS, k=60)), "year": 1900 + number % 120}


def _pages(count: int) -> Iterator[dict[str, object]]:
    for page in islice(documentation(), count):
        yield {"id": page.id, "title": page.title, "text": page.text}


def _grown(folder: Path, corpus: Callable[[int], Iterator[dict[str, object]]], count: int) -> Grown:
    source = folder / "corpus.jsonl"
    with source.open("w", encoding="utf-8") as lines:
        for row in corpus(count):
            lines.write(json.dumps(row) + "\n")
    command = [
        *(sys.executable, "-m", "cluster.cli", "ingest", str(source), "--index", "grown", "--json"),
        *("--store", str(folder / "store"), "--embedder.engine", "fake", "--shard-bytes", str(SHARD_BYTES)),
    ]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with (folder / "summary.json").open("w") as told, (folder / "messages").open("w") as messages:
        process = subprocess.Popen(command, stdout=told, stderr=messages, env=environment)
        peaks = Peaks()
        while process.poll() is None:
            _look(psutil.Process(process.pid), peaks)
            time.sleep(SECONDS_BETWEEN_LOOKS)
    if process.returncode:
        raise RuntimeError(f"the ingest failed: {(folder / 'messages').read_text()[-2000:]}")
    summary = json.loads((folder / "summary.json").read_text())
    return Grown(
        documents=summary["counts"]["indexed"],
        chunks=summary["counts"]["chunks"],
        shards=summary["shards"],
        seconds=sum(summary["seconds"].values()),
        source=source.stat().st_size,
        stored=summary["bytes"],
        peaks=peaks,
    )


def _look(driver: psutil.Process, peaks: Peaks) -> None:
    own = 0
    try:
        peaks.driver = max(peaks.driver, _anonymous(driver))
        below = driver.children(recursive=True)
    except psutil.Error:
        return
    for process in below:
        try:
            title, used = " ".join(process.cmdline()[:1]), _anonymous(process)
        except psutil.Error:
            continue
        if title.startswith(WORKERS):
            peaks.worker = max(peaks.worker, used)
        else:
            own += used
    peaks.ray = max(peaks.ray, own)


def _anonymous(process: psutil.Process) -> int:
    """Bytes; raises psutil.NoSuchProcess."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        raise psutil.NoSuchProcess(process.pid) from None
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def _table(title: str, runs: list[Grown]) -> Table:
    first = runs[0]
    rows: list[list[Cell]] = [
        [
            f"{run.documents:,}",
            f"{run.chunks:,} in {run.shards}",
            f"{run.seconds:.1f}",
            f"{1e6 * run.seconds / run.documents:.0f}",
            f"{run.stored / run.source:.2f}",
            f"{run.peaks.driver / 1e6:.0f} ({_ratio(run.peaks.driver, first.peaks.driver)})",
            f"{run.peaks.worker / 1e6:.0f} ({_ratio(run.peaks.worker, first.peaks.worker)})",
            f"{run.peaks.ray / 1e6:.0f}",
        ]
        for run in runs
    ]
    return Table(
        f"Growth: {title}, shards of at most {SHARD_BYTES >> 20} MiB",
        [
            "documents",
            "chunks in shards",
            "seconds",
            "us a document",
            "bytes stored a byte read",
            "peak of the driver, MB (to the first)",
            "peak of a worker, MB (to the first)",
            "Ray's own processes, MB",
        ],
        rows,
        notes=("Anonymous memory; the fake embedder; seconds of the stages, Ray's start apart.",),
    )


def _ratio(value: int, first: int) -> str:
    return f"{value / first:.2f}" if first else "-"
