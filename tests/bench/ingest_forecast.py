"""How far off is `tandem ingest --dry-run`?

Each corpus is forecast and then ingested, each time by a process of its own. Memory is seen from outside: of the run's
largest worker, and of a process that answers questions from the snapshot.
Not measured: clusters, GPUs, approximate types (their training takes longer than anything else at sizes that fit here).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
from corpora import Passage, documentation
from table import Cell, Table, told

ROOT = Path(__file__).resolve().parents[2]
FULL = (400, 1_600)  # documents
QUICK = (20,)
TOLERATED = 0.25
_LOOK_S = 0.1
_QUESTIONS = 200
_SEARCHER = """
import json, sys
from pathlib import Path
from ray_jobs.index.manifest import read_live
from ray_jobs.index.search import SearchConfig
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.models.for_queries import load_for_queries
from ray_jobs.storage import LocalStorage

store, questions = LocalStorage(Path(sys.argv[1])), json.loads(Path(sys.argv[2]).read_text())
embedder = load_for_queries(None, read_live(store, "docs").embedder)
embedder.encode_queries(questions[:8])
kept = {name: 0 for name in ("vectors.faiss", "postings")}
opened = Snapshot.open(store, "docs")
opened.search(questions, SearchConfig(k=10), embedder)
name = ""
for line in Path("/proc/self/smaps").read_text().splitlines():
    head = line.split()
    if "-" in head[0]:
        name = head[-1]
    elif head[0] == "Rss:":
        for part in kept:
            kept[part] += 1024 * int(head[1]) * (part in name)
print(json.dumps(kept))
"""


@dataclass
class Watched:
    """What the processes of a command took."""

    largest: int = 0  # bytes of the largest worker
    done: threading.Event = field(default_factory=threading.Event)

    def watch(self, process: psutil.Process) -> None:
        """Look at its workers until it is done."""
        while not self.done.wait(_LOOK_S):
            for child in _descendants(process):
                try:
                    if child.name().startswith("ray::") or any(
                        part.startswith("ray::") for part in child.cmdline()[:1]
                    ):
                        self.largest = max(self.largest, child.memory_info().rss)
                except psutil.Error:
                    continue


@dataclass(frozen=True)
class Compared:
    """A figure that was forecast, and what it came to."""

    name: str
    unit: str
    forecast: float
    real: float

    @property
    def error(self) -> float:
        """Of the forecast, as a share of what it came to."""
        return self.forecast / self.real - 1 if self.real else 0.0


def measure(quick: bool) -> list[Table]:
    """Forecast and ingest each corpus; returns the tables."""
    tables = []
    for documents in QUICK if quick else FULL:
        with tempfile.TemporaryDirectory() as folder:
            tables += _measure(Path(folder), documents)
    return tables


def _measure(folder: Path, documents: int) -> list[Table]:
    passages = list(islice(documentation(), documents))
    source = _write(folder / "documentation.jsonl", passages)
    plan = _ingest(folder, source, "--dry-run")[0]
    summary, watched = _ingest(folder, source)
    questions = folder / "questions.json"
    questions.write_text(json.dumps([" ".join(passage.text.split()[:12]) or "x" for passage in passages[:_QUESTIONS]]))
    searched = _python(["-c", _SEARCHER, str(folder / "store"), str(questions)])
    compared = [
        Compared("chunks", "", plan["chunks"], summary["counts"]["chunks"]),
        Compared("disk", "MB", plan["disk"] / 1e6, summary["bytes"] / 1e6),
        Compared("time of the run", "s", sum(plan["seconds"].values()), sum(summary["seconds"].values())),
        Compared("memory of the largest worker", "MB", plan["worker_memory"] / 1e6, watched.largest / 1e6),
        Compared("memory where it is searched", "MB", plan["serving_memory"] / 1e6, sum(searched.values()) / 1e6),
    ]
    title = f"{documents:,} documents of documentation, {summary['index_type']}"
    sampled = f"By a sample of {plan['sampled_documents']:,} documents."
    return [told(_forecast(title, compared, sampled)), told(_stages(title, plan, summary))]


def _write(path: Path, passages: list[Passage]) -> Path:
    """Lines of JSON: parts of them are a sample, where a row group of Parquet would be nearly all."""
    with path.open("w", encoding="utf-8") as file:
        for passage in passages:
            file.write(json.dumps({"id": passage.id, "title": passage.title, "text": passage.text}) + "\n")
    return path


def _ingest(folder: Path, source: Path, *flags: str) -> tuple[dict[str, Any], Watched]:
    """Run `tandem ingest`; returns what it prints, and what its workers took."""
    store = str(folder / "store")
    command = ["-m", "cluster.cli", "ingest", str(source), "--index", "docs", "--store", store, "--json", *flags]
    with _watched() as (start, watched):
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE)
        start(process.pid)
        output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return json.loads(output), watched


@contextmanager
def _watched() -> Iterator[Any]:
    watched = Watched()
    threads: list[threading.Thread] = []

    def start(pid: int) -> None:
        threads.append(threading.Thread(target=watched.watch, args=(psutil.Process(pid),)))
        threads[0].start()

    try:
        yield start, watched
    finally:
        watched.done.set()
        for thread in threads:
            thread.join()


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _python(arguments: list[str]) -> dict[str, int]:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    found: dict[str, int] = json.loads(done.stdout)
    return found


def _forecast(title: str, compared: list[Compared], sampled: str) -> Table:
    rows: list[list[Cell]] = [
        [f"{item.name} ({item.unit})" if item.unit else item.name, item.forecast, item.real, f"{item.error:+.1%}"]
        for item in compared
    ]
    worst = max(compared, key=lambda item: abs(item.error))
    note = f"{sampled} Tolerated: {TOLERATED:.0%}. Furthest off: {worst.name}, {worst.error:+.1%}."
    return Table(f"Forecast of {title}", ["", "forecast", "came to", "error"], rows, [note])


def _stages(title: str, plan: dict[str, Any], summary: dict[str, Any]) -> Table:
    names = list(dict.fromkeys([*plan["seconds"], *summary["seconds"]]))
    rows: list[list[Cell]] = [
        [name, f"{plan['seconds'].get(name, 0.0):.1f}", f"{summary['seconds'].get(name, 0.0):.1f}"] for name in names
    ]
    return Table(f"Seconds a stage, {title}", ["stage", "forecast", "came to"], rows)
