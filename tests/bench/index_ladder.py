"""What does each rung of the ladder take, and reach? And what do centroids in two levels lose?

All over the same real embeddings and held-out sentences as the search benchmark.
Not measured: indices that do not fit in memory; several machines.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from search_peers import PROBES, K, TandemIndex
from table import Cell, Table, told
from tandem_index import build, make_template
from truth import cpus, exact_rows, material, recall_of

from ray_jobs.index import layout
from ray_jobs.index.clustering import two_level
from ray_jobs.index.factory import IndexType, index_bytes, list_count
from ray_jobs.index.ladder import RUNGS, Wanted
from ray_jobs.index.manifest import RecallReport
from ray_jobs.index.template import OVERSAMPLINGS, with_recall
from ray_jobs.models.embedder import Embedder
from ray_jobs.storage import open_storage

TARGETS = (0.95, 0.99)


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    vectors: int
    queries: int
    rounds: int
    lists: tuple[int, ...]  # of the comparison of two levels with one


FULL = Size(vectors=200_000, queries=500, rounds=5, lists=(1_024, 4_096))
QUICK = Size(vectors=12_000, queries=50, rounds=2, lists=(128,))


@dataclass
class Setting:
    """A rung, and what its search is set to."""

    index: TandemIndex
    target: float
    report: RecallReport
    rates: list[float]


def measure(quick: bool) -> list[Table]:
    """Build every rung, find its settings, time them in turns; then train centroids both ways."""
    size = QUICK if quick else FULL
    given = material(size.vectors, size.queries)
    vectors, asked = given.vectors, given.asked
    truth = exact_rows(vectors, asked)
    with tempfile.TemporaryDirectory() as folder:
        rungs = _rungs(Path(folder), given.embedder, vectors, given.rows)
        built = [_table(rungs, vectors, asked, truth)]
        settings = [setting for rung in rungs for target in TARGETS if (setting := _set(rung, target, asked, truth))]
        for turn in range(size.rounds):
            for place in np.random.default_rng(turn).permutation(len(settings)).tolist():
                settings[place].rates.append(_rate(settings[place], asked))
    return [told(built[0]), told(_speed(settings, vectors)), told(_levels(size, vectors, asked, truth))]


def _rungs(folder: Path, embedder: Embedder, vectors: np.ndarray, rows: pa.Table) -> list[TandemIndex]:
    storage = open_storage(str(folder / "store"))
    place = rows.schema.get_field_index("lexical_text")
    rows = rows.set_column(place, "lexical_text", pa.array([""] * len(rows), pa.string()))
    wanted = Wanted(len(vectors), embedder.dimension)
    made = []
    for factory in [rung.factory(wanted) for rung in RUNGS]:
        if factory is not None:
            started = time.perf_counter()
            template = make_template(storage, "bench", factory, vectors)
            trained = time.perf_counter() - started
            made.append(
                TandemIndex(build(storage, "bench", template, embedder.identity, vectors, rows, 1), template.factory)
            )
            print(f"  {factory}: trained in {trained:.0f} s", file=sys.stderr, flush=True)
    return made


def _table(rungs: Sequence[TandemIndex], vectors: np.ndarray, asked: np.ndarray, truth: np.ndarray) -> Table:
    """Bytes, and the recall of each rung with every list scanned."""
    rows: list[list[Cell]] = []
    for rung in rungs:
        manifest = rung.snapshot.manifest
        kind = IndexType(manifest.template.factory, "")
        forecast = index_bytes(kind, len(vectors), vectors.shape[1])
        real = manifest.shards[0].files[layout.VECTORS_FAISS].size
        reached = [recall_of(_found(rung, kind.lists, wide, asked), truth) for wide in OVERSAMPLINGS]
        rows.append(
            [
                manifest.template.factory,
                f"{real / len(vectors):.1f}",
                f"{forecast / real - 1:+.1%}",
                *(f"{recall:.4f}" for recall in reached),
            ]
        )
    columns = ["rung", "bytes a vector", "error of the forecast"]
    columns += [f"recall@10, {wide} candidates a hit" for wide in OVERSAMPLINGS]
    notes = ["All lists scanned; candidates are rescored from the stored float16 vectors. Bytes: the whole file."]
    return Table(f"Rungs of the ladder, {len(vectors):,} embeddings", columns, rows, notes)


def _found(rung: TandemIndex, nprobe: int, oversampling: int, asked: np.ndarray) -> np.ndarray:
    report = RecallReport(k=K, queries=len(asked), nprobe=nprobe, oversampling=oversampling, recall=0, target=0)
    tuned = TandemIndex(rung.snapshot, rung.name)
    before = rung.snapshot.manifest
    rung.snapshot.manifest = with_recall(before, report)
    try:
        return tuned.find(asked, nprobe, cpus())
    finally:
        rung.snapshot.manifest = before


def _set(rung: TandemIndex, target: float, asked: np.ndarray, truth: np.ndarray) -> Setting | None:
    """The fastest setting that reaches the target, by one look at each; None where none does."""
    best: tuple[float, RecallReport] | None = None
    probes = PROBES
    for wide in OVERSAMPLINGS:
        for nprobe in probes:
            started = time.perf_counter()
            recall = recall_of(_found(rung, nprobe, wide, asked), truth)
            seconds = time.perf_counter() - started
            if recall >= target:
                report = RecallReport(
                    k=K, queries=len(asked), nprobe=nprobe, oversampling=wide, recall=recall, target=target
                )
                if best is None or seconds < best[0]:
                    best = (seconds, report)
                probes = tuple(fewer for fewer in probes if fewer < nprobe)
                break
    return None if best is None else Setting(rung, target, best[1], [])


def _rate(setting: Setting, asked: np.ndarray) -> float:
    started = time.perf_counter()
    _found(setting.index, setting.report.nprobe, setting.report.oversampling, asked)
    return len(asked) / (time.perf_counter() - started)


def _speed(settings: Sequence[Setting], vectors: np.ndarray) -> Table:
    rows: list[list[Cell]] = [
        [
            setting.index.snapshot.manifest.template.factory,
            f"{setting.target}",
            setting.report.nprobe,
            setting.report.oversampling,
            f"{setting.report.recall:.4f}",
            f"{statistics.median(setting.rates):,.0f}",
        ]
        for setting in settings
    ]
    columns = ["rung", "target", "nprobe", "candidates a hit", "recall@10", f"queries/s, {cpus()} threads"]
    notes = ["The fastest setting that reaches the target; a rung without a line reaches it with none."]
    return Table(f"Speed of the rungs at equal recall, {len(vectors):,} embeddings", columns, rows, notes)


def _levels(size: Size, vectors: np.ndarray, asked: np.ndarray, truth: np.ndarray) -> Table:
    """Plain k-means and two levels from one sample: time, balance, recall at equal nprobe."""
    rows: list[list[Cell]] = []
    for lists in size.lists:
        sample = vectors[np.random.default_rng(0).choice(len(vectors), min(len(vectors), 64 * lists), replace=False)]
        for name, train in (("k-means", _plain), ("two levels", two_level)):
            started = time.perf_counter()
            centroids = train(sample, lists, _parameters())
            seconds = time.perf_counter() - started
            imbalance, recalls = _lists(centroids, vectors, asked, truth)
            rows.append([f"{lists:,}", name, f"{seconds:.1f}", f"{imbalance:.2f}", *(f"{r:.4f}" for r in recalls)])
    columns = ["lists", "centroids by", "seconds", "imbalance"]
    columns += [f"recall@10, 1/{part} of the lists" for part in (128, 64, 32, 16)]
    notes = [
        "Imbalance: the mean length of the list that a vector is in, by the mean length of a list; 1 is the least.",
        f"Up to {list_count(len(vectors)):,} lists are chosen by themselves for as many vectors.",
    ]
    return Table(f"Centroids in two levels, {len(vectors):,} embeddings", columns, rows, notes)


def _plain(sample: np.ndarray, lists: int, parameters: Any) -> np.ndarray:
    import faiss

    kmeans = faiss.Kmeans(
        sample.shape[1], lists, niter=parameters.niter, spherical=True, seed=parameters.seed, min_points_per_centroid=1
    )
    kmeans.train(sample.astype(np.float32))
    found: np.ndarray = kmeans.centroids
    return found


def _parameters() -> Any:
    import faiss

    found = faiss.ClusteringParameters()
    found.niter, found.spherical = 10, True
    return found


def _lists(
    centroids: np.ndarray, vectors: np.ndarray, asked: np.ndarray, truth: np.ndarray
) -> tuple[float, list[float]]:
    """The imbalance of the lists, and the recall of exact scores within a part of them."""
    import faiss

    lists = len(centroids)
    quantiser = faiss.IndexFlatIP(vectors.shape[1])
    index = faiss.IndexIVFFlat(quantiser, vectors.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    quantiser.add(centroids)
    index.is_trained = True
    index.add(vectors.astype(np.float32))
    recalls = []
    for part in (128, 64, 32, 16):
        index.nprobe = max(1, lists // part)
        recalls.append(recall_of(index.search(asked, K)[1], truth))
    return float(index.invlists.imbalance_factor()), recalls
