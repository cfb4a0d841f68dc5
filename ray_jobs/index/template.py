"""The template: a trained, empty FAISS index that every shard of a snapshot fills, and how far it must be searched.

Guaranteed: the same sample and factory string give the same template on one machine (FAISS's k-means is seeded); the
recall in the manifest was measured on rows of this snapshot, as users search it (candidates are rescored from the
stored vectors), against an exact scan of the stored vectors. Memory of training: the sample, mapped from a file, where
there are at most `TWO_LEVEL_LISTS` lists, and for more of them a part of it that does not grow with it.
Not guaranteed: that recall on queries unlike the corpus.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ray_jobs.errors import RejectedError
from ray_jobs.index.clustering import Sample, fill_quantiser
from ray_jobs.index.factory import IndexType, make_index
from ray_jobs.index.files import write_faiss
from ray_jobs.index.manifest import OVERSAMPLING, Manifest, RecallReport
from ray_jobs.index.search import Queries, SearchConfig, Statistics, make_plan
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.storage import new_id

# efSearch of an HNSW quantiser. With FAISS's own 16, recall@10 on 200,000 embeddings stayed below 0.945 however many
# lists were scanned; with 128 it is that of comparing with every centroid.
QUANTISER_WIDTH = 128
TWO_LEVEL_LISTS = 16_384  # lists above which centroids are found in two levels
CODEC_SAMPLE = 131_072  # vectors from which codes and rotations are learned where lists have a sample of their own
RECALL_K = 10
RECALL_QUERIES = 256
OVERSAMPLINGS = (OVERSAMPLING, 4 * OVERSAMPLING, 16 * OVERSAMPLING)  # candidates a hit to try
_CONVERTED_ROWS = 16_384  # of the sample, at a time
_RESCORED_CODES = 200  # codes that are scanned in the time in which one candidate is read and scored

Places = list[tuple[int, int]]  # (shard, row) each


def train(index_type: IndexType, sample: Sample, dimension: int, path: Path) -> int:
    """Train an empty index on `sample` (n, d), write it to `path`, and return how many vectors were used.

    Raises RejectedError when the sample is too small for the type.
    """
    index = make_index(index_type.factory, dimension)
    _widen_quantiser(index)
    trained_on = 0 if index.is_trained else len(sample)
    if trained_on:
        try:
            _train(index, index_type, sample, path.parent)
        except RuntimeError as error:
            reason = str(error).rsplit("Error: ", 1)[-1].strip()
            raise RejectedError(
                f"index_type={index_type.factory}: FAISS cannot train it on {len(sample)} vectors ({reason}); "
                f"use 'auto' or a type with fewer lists and shorter codes"
            ) from None
    write_faiss(index, path)
    return trained_on


def _train(index: Any, index_type: IndexType, sample: Sample, folder: Path) -> None:
    import faiss

    if not TWO_LEVEL_LISTS < index_type.lists <= len(sample):
        index.train(_mapped(sample, folder))
        return
    rows = np.random.default_rng(0).choice(len(sample), min(CODEC_SAMPLE, len(sample)), replace=False)
    some = sample[np.sort(rows)].astype(np.float32)
    rotated = some
    if isinstance(index, faiss.IndexPreTransform):
        for position in range(index.chain.size()):
            transform = faiss.downcast_VectorTransform(index.chain.at(position))
            transform.train(rotated)
            rotated = transform.apply(rotated)
    fill_quantiser(index, sample)
    index.train(some)


def _mapped(sample: Sample, folder: Path) -> npt.NDArray[np.float32]:
    """The sample in float32, in a file of `folder` that goes with it: the system may take its pages back."""
    if not len(sample):
        return sample.astype(np.float32)
    path = folder / f"sample-{new_id()}.f32"
    with path.open("wb") as file:
        for start in range(0, len(sample), _CONVERTED_ROWS):
            file.write(sample[start : start + _CONVERTED_ROWS].astype(np.float32).tobytes())
    values = np.memmap(path, np.float32, "r", shape=sample.shape)
    path.unlink()
    return values


def _widen_quantiser(index: Any) -> None:
    """Search a graph of centroids as widely as it takes: vectors put into the wrong list are found by no nprobe."""
    import faiss

    lists = faiss.try_extract_index_ivf(index)
    quantiser = None if lists is None else faiss.downcast_index(lists.quantizer)
    if isinstance(quantiser, faiss.IndexHNSW):
        quantiser.hnsw.efSearch = QUANTISER_WIDTH


def default_nprobe(index_type: IndexType) -> int:
    """Inverted lists probed before recall is measured: 1/16 of them, at least 1; 0 for a type without lists."""
    return max(1, index_type.lists // 16) if index_type.lists else 0


def nprobe_ladder(lists: int) -> list[int]:
    """Probe counts to try, ascending: powers of two and all lists."""
    ladder = [2**power for power in range(lists.bit_length()) if 2**power < lists]
    return [*ladder, lists]


def tune(
    snapshot: Snapshot, target: float, seed: int = 0, seen: Callable[[RecallReport], None] = lambda _: None
) -> RecallReport | None:
    """The nprobe and oversampling that reach recall@10 `target` for the least work; None for an exact index.

    Where nothing reaches it, what comes nearest. Recall is that of search as users get it (candidates rescored from the
    stored vectors) against an exact scan, on a random sample of rows; each row is left out of its own lists.
    `seen` is called after each pair that was tried.
    """
    index_type = IndexType(snapshot.manifest.template.factory, "")
    if index_type.is_exact or not snapshot.manifest.live_rows:
        return None
    own, vectors = sample_rows(snapshot, RECALL_QUERIES, seed)
    queries = Queries(vectors, [[] for _ in own])
    truth = _neighbours(snapshot, queries, own)
    probes = nprobe_ladder(index_type.lists) if index_type.lists else [0]
    tried: list[RecallReport] = []
    for oversampling in OVERSAMPLINGS:
        for nprobe in probes:
            report = RecallReport(
                k=RECALL_K, queries=len(own), nprobe=nprobe, oversampling=oversampling, recall=0.0, target=target
            )
            recall = _recall(truth, _neighbours(snapshot, queries, own, report))
            tried.append(report.model_copy(update={"recall": recall}))
            seen(tried[-1])
            if recall >= target:
                # More candidates pay only where fewer lists do, too.
                probes = [fewer for fewer in probes if fewer < nprobe]
                break
    return _best(tried, snapshot.manifest.live_rows, index_type)


def _best(tried: Sequence[RecallReport], rows: int, index_type: IndexType) -> RecallReport:
    """The cheapest of those that reach the target, or the one with the highest recall."""

    def work(report: RecallReport) -> float:
        scanned = rows * report.nprobe / index_type.lists if index_type.lists else 0
        return scanned + _RESCORED_CODES * report.oversampling * report.k

    reached = [report for report in tried if report.recall >= report.target]
    return min(reached, key=work) if reached else max(tried, key=lambda report: report.recall)


def _recall(truth: Sequence[set[tuple[int, int]]], found: Sequence[set[tuple[int, int]]]) -> float:
    shares = [len(expected & got) / len(expected) for expected, got in zip(truth, found, strict=True) if expected]
    return float(np.mean(shares)) if shares else 1.0


def sample_rows(snapshot: Snapshot, count: int, seed: int) -> tuple[Places, npt.NDArray[np.float32]]:
    """At most `count` random live rows as (shard, row), and their vectors (n, d)."""
    shards = snapshot.partition.shards
    sizes = np.array([shard.live_count for shard in shards.values()], np.int64)
    starts = np.r_[0, np.cumsum(sizes)]
    chosen = np.sort(np.random.default_rng(seed).choice(starts[-1], min(count, int(starts[-1])), replace=False))
    positions = np.searchsorted(starts, chosen, side="right") - 1
    numbers = list(shards)
    rows = [
        (numbers[p], int(shards[numbers[p]].live_rows[place - starts[p]]))
        for p, place in zip(positions.tolist(), chosen.tolist(), strict=True)
    ]
    vectors = [shards[number].dense.vectors[row] for number, row in rows]
    return rows, np.stack(vectors).astype(np.float32)


def _neighbours(
    snapshot: Snapshot, queries: Queries, own: Places, searched: RecallReport | None = None
) -> list[set[tuple[int, int]]]:
    """The best 10 (shard, row) of each query other than its own row, as `searched` or by an exact scan."""
    config = SearchConfig(mode="dense", by="chunk", k=RECALL_K + 1)
    manifest = snapshot.manifest if searched is None else with_recall(snapshot.manifest, searched)
    plan = replace(make_plan(manifest, config, None, 0), exact=searched is None)
    listed = snapshot.ranking(queries, plan, Statistics()).candidates
    found: list[list[tuple[int, int]]] = [[] for _ in own]
    for query, shard, row in zip(listed.query.tolist(), listed.shard.tolist(), listed.row.tolist(), strict=True):
        if (shard, row) != own[query]:
            found[query].append((shard, row))
    return [set(rows[:RECALL_K]) for rows in found]


def with_recall(manifest: Manifest, report: RecallReport | None) -> Manifest:
    """The manifest with the measured recall, and the nprobe and oversampling that reached it."""
    if report is None:
        return manifest
    found = {"nprobe": report.nprobe, "oversampling": report.oversampling}
    template = manifest.template.model_copy(update=found)
    return manifest.model_copy(update={"template": template, "recall": report})
