"""How fast is dense search at equal recall, and does sharding cost any?

Every system holds the same real embeddings and answers the same held-out sentences; its setting is the smallest whose
recall@10 against exact search reaches 0.95. Queries a second are taken in rounds in which every system has its turn.
Not measured: memory, building time, several machines.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from search_peers import Faiss, HnswLib, LanceDB, Rows, System, TandemIndex, USearch, Vectors
from table import Cell, Table
from tandem_index import build, make_template, template_path
from truth import cpus, exact_rows, material, recall_of

from ray_jobs.models.embedder import Embedder
from ray_jobs.storage import open_storage

TARGET = 0.95
SHARDS = (1, 4, 16)
TYPES = ("auto", "IVF{n}_HNSW32,SQ8", "Flat", "HNSW32")


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    vectors: int
    queries: int
    single: int  # queries a round, one at a time
    batch: int  # queries a round, at once
    rounds: int


FULL = Size(vectors=200_000, queries=1_000, single=100, batch=500, rounds=7)
QUICK = Size(vectors=3_000, queries=100, single=10, batch=50, rounds=2)


@dataclass
class Measured:
    """One system at its setting."""

    system: System
    effort: int
    recall: float
    single: list[float] = field(default_factory=list)  # queries a second, a round
    batch: list[float] = field(default_factory=list)
    text: list[float] = field(default_factory=list)  # batch, with the text of the hits; Tandem only


def measure(quick: bool) -> list[Table]:
    """Build every index, find its setting, and time them in turns."""
    size = QUICK if quick else FULL
    given = material(size.vectors, size.queries)
    vectors, asked = given.vectors, given.asked
    with tempfile.TemporaryDirectory() as folder:
        systems = _systems(Path(folder), given.embedder, vectors, given.rows)
        truth = exact_rows(vectors, asked)
        measured = [_set(system, asked, truth) for system in systems]
        for turn in range(size.rounds):
            _round(measured, asked, size, turn)
    return [_speed(measured, len(vectors), len(asked)), _sharding(measured, asked, truth)]


def _systems(folder: Path, embedder: Embedder, stored: np.ndarray, rows: pa.Table) -> list[System]:
    """Tandem in every type and number of shards, and the peers."""
    storage = open_storage(str(folder / "store"))
    vectors = stored.astype(np.float32)
    # Words are of no use here, and indexing them would take most of the time.
    place = rows.schema.get_field_index("lexical_text")
    rows = rows.set_column(place, "lexical_text", pa.array([""] * len(rows), pa.string()))
    tandem: list[System] = []
    peers: list[System] = []
    for kind in TYPES:
        template = make_template(storage, "bench", kind, stored)
        for shards in SHARDS if kind != "HNSW32" else SHARDS[:1]:
            _say(f"building Tandem {template.factory}, {shards} shards")
            snapshot = build(storage, "bench", template, embedder.identity, stored, rows, shards)
            tandem.append(TandemIndex(snapshot, template.factory))
        _say(f"building FAISS {template.factory}")
        peers.append(Faiss(template.factory, template_path(storage, template), vectors))
    makers: tuple[Callable[[], System], ...] = (
        lambda: HnswLib(vectors),
        lambda: USearch(vectors),
        lambda: LanceDB(vectors, folder / "lancedb"),
    )
    for make_peer in makers:
        started = time.perf_counter()
        peers.append(make_peer())
        _say(f"built {peers[-1].name} in {time.perf_counter() - started:.0f} s")
    return [*tandem, *peers]


def _set(system: System, asked: Vectors, truth: Rows) -> Measured:
    """The smallest setting that reaches the target, or the largest there is."""
    for effort in system.ladder:
        recall = recall_of(system.find(asked, effort, cpus()), truth)
        if recall >= TARGET:
            break
    _say(f"{system.name}: {system.setting} {effort}, recall {recall:.4f}")
    return Measured(system, effort, recall)


def _round(measured: list[Measured], asked: Vectors, size: Size, turn: int) -> None:
    """Everyone once, in another order each time, on the same queries."""
    random = np.random.default_rng(turn)
    batch = asked[random.choice(len(asked), min(size.batch, len(asked)), replace=False)]
    single = batch[: size.single]
    for place in random.permutation(len(measured)).tolist():
        item = measured[place]
        item.single.append(_rate(lambda: [item.system.find(one[None], item.effort, 1) for one in single], len(single)))  # noqa: B023
        item.batch.append(_rate(lambda: item.system.find(batch, item.effort, cpus()), len(batch)))  # noqa: B023
        if isinstance(item.system, TandemIndex):
            item.text.append(_rate(lambda: item.system.hits(batch, item.effort, cpus()), len(batch)))  # noqa: B023


def _rate(work: Callable[[], object], count: int) -> float:
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def _speed(measured: list[Measured], vectors: int, asked: int) -> Table:
    default = measured[0]
    rows: list[list[Cell]] = []
    for item in measured:
        setting = f"{item.system.setting} {item.effort}".strip() if item.system.setting else ""
        rows.append(
            [
                item.system.name,
                setting,
                f"{item.recall:.4f}",
                f"{statistics.median(item.single):,.0f}",
                "" if item is default else _ratio(default.single, item.single),
                f"{statistics.median(item.batch):,.0f}",
                "" if item is default else _ratio(default.batch, item.batch),
                f"{statistics.median(item.text):,.0f}" if item.text else "",
            ]
        )
    columns = [
        f"{vectors:,} embeddings, {asked:,} queries",
        "setting",
        "recall@10",
        "one at a time, 1 thread: queries/s",
        "Tandem's default is faster by",
        f"in batches, {cpus()} threads: queries/s",
        "Tandem's default is faster by",
        "in batches, with the text of the hits",
    ]
    notes = (
        f"Setting: the smallest with recall@10 of at least {TARGET} against exact search. Medians of rounds in turns.",
        "Vectors are of chunks of at most 128 tokens of technical documentation; queries are sentences held out of it.",
        "Tandem rescores from stored vectors, merges shards and orders ties by document; the others do not. These "
        "steps are in numpy: a batch shares them, a single query pays for them alone, which is why graphs answer it "
        "sooner. More shards in one process mean as many shorter lists to scan; they pay on several hosts, and cost no "
        "recall.",
    )
    return Table("Dense search at equal recall", columns, rows, notes)


def _sharding(measured: list[Measured], asked: Vectors, truth: Rows) -> Table:
    """What sharding changes, at the setting that one shard needs."""
    rows: list[list[Cell]] = []
    whole: dict[str, tuple[int, Rows | None]] = {}
    for item in measured:
        if isinstance(item.system, TandemIndex):
            factory = item.system.snapshot.manifest.template.factory
            effort, expected = whole.get(factory, (item.effort, None))
            found = item.system.find(asked, effort, cpus())
            whole.setdefault(factory, (effort, found))
            same = 1.0 if expected is None else float((found == expected).all(axis=1).mean())
            rows.append([item.system.name, f"{effort or ''}", f"{recall_of(found, truth):.4f}", f"{same:.1%}"])
    columns = ["index", "nprobe", "recall@10", "queries with the very hits of one shard"]
    return Table("What sharding changes", columns, rows)


def _ratio(own: list[float], other: list[float]) -> str:
    ratios = [a / b for a, b in zip(own, other, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _say(message: str) -> None:
    print(f"  {message}", file=sys.stderr, flush=True)
