"""The template: a trained, empty FAISS index that every shard of a snapshot fills, and how far it must be probed.

Guaranteed: the same sample and factory string give the same template on one machine (FAISS's k-means is seeded); the
recall in the manifest was measured on rows of this snapshot, against an exact scan of the stored vectors.
Not guaranteed: that recall on queries unlike the corpus.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ray_jobs.errors import RejectedError
from ray_jobs.index.factory import IndexType
from ray_jobs.index.files import write_faiss
from ray_jobs.index.manifest import Manifest, RecallReport
from ray_jobs.index.search import Queries, SearchConfig, Statistics, make_plan
from ray_jobs.index.snapshot import Snapshot

# efSearch of an HNSW quantiser. With FAISS's own 16, recall@10 on 200,000 embeddings stayed below 0.945 however many
# lists were scanned; with 128 it is that of comparing with every centroid.
QUANTISER_WIDTH = 128
RECALL_K = 10
RECALL_QUERIES = 256


def train(index_type: IndexType, sample: npt.NDArray[np.float32], dimension: int, path: Path) -> int:
    """Train an empty index on `sample` (n, d), write it to `path`, and return how many vectors were used.

    Raises RejectedError when the sample is too small for the type.
    """
    import faiss

    index = faiss.index_factory(dimension, index_type.factory, faiss.METRIC_INNER_PRODUCT)
    _widen_quantiser(index)
    if not index.is_trained:
        try:
            index.train(sample)
        except RuntimeError as error:
            reason = str(error).rsplit("Error: ", 1)[-1].strip()
            raise RejectedError(
                f"index_type={index_type.factory}: FAISS cannot train it on {len(sample)} vectors ({reason}); "
                f"use 'auto' or a type with fewer lists and shorter codes"
            ) from None
        trained_on = len(sample)
    else:
        trained_on = 0
    write_faiss(index, path)
    return trained_on


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


def tune(snapshot: Snapshot, target: float, seed: int = 0) -> RecallReport | None:
    """The smallest nprobe whose recall@10 reaches `target`, or all lists; None for an exact index.

    Recall is that of search as users get it (candidates rescored from the stored vectors) against an exact scan, on a
    random sample of rows; each row is left out of its own lists.
    """
    index_type = IndexType(snapshot.manifest.template.factory, "")
    if index_type.is_exact or not snapshot.manifest.live_rows:
        return None
    own, vectors = sample_rows(snapshot, RECALL_QUERIES, seed)
    queries = Queries(vectors, [[] for _ in own])
    truth = _neighbours(snapshot, queries, own, exact=True, nprobe=1)
    report = None
    for nprobe in nprobe_ladder(index_type.lists) if index_type.lists else [0]:
        found = _neighbours(snapshot, queries, own, exact=False, nprobe=nprobe)
        shares = [len(expected & got) / len(expected) for expected, got in zip(truth, found, strict=True) if expected]
        recall = float(np.mean(shares)) if shares else 1.0
        report = RecallReport(k=RECALL_K, queries=len(own), nprobe=nprobe, recall=recall, target=target)
        if recall >= target:
            break
    return report


def sample_rows(snapshot: Snapshot, count: int, seed: int) -> tuple[list[tuple[int, int]], npt.NDArray[np.float32]]:
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
    snapshot: Snapshot, queries: Queries, own: list[tuple[int, int]], exact: bool, nprobe: int
) -> list[set[tuple[int, int]]]:
    """The best 10 (shard, row) of each query other than its own row."""
    config = SearchConfig(mode="dense", by="chunk", k=RECALL_K + 1)
    plan = replace(make_plan(snapshot.manifest, config, None, 0), exact=exact, nprobe=nprobe)
    listed = snapshot.ranking(queries, plan, Statistics()).candidates
    found: list[list[tuple[int, int]]] = [[] for _ in own]
    for query, shard, row in zip(listed.query.tolist(), listed.shard.tolist(), listed.row.tolist(), strict=True):
        if (shard, row) != own[query]:
            found[query].append((shard, row))
    return [set(rows[:RECALL_K]) for rows in found]


def with_recall(manifest: Manifest, report: RecallReport | None) -> Manifest:
    """The manifest with the measured recall and the nprobe that reached it."""
    if report is None:
        return manifest
    template = manifest.template.model_copy(update={"nprobe": report.nprobe})
    return manifest.model_copy(update={"template": template, "recall": report})
