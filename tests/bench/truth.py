"""What the benchmarks of dense search share: the real embeddings, held-out sentences, their true neighbours, recall."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from search_peers import K, Rows, Vectors
from vectors import load, make, queries

from ray_jobs.models.embedder import Embedder, EmbedderConfig, choose_engine


@dataclass(frozen=True)
class Material:
    """Vectors (n, d) with their rows, and what is asked of them (q, d)."""

    embedder: Embedder
    vectors: npt.NDArray[np.float16]
    rows: pa.Table
    asked: Vectors


def material(vectors: int, asked: int) -> Material:
    """So many vectors and queries; those that are missing are made."""
    make(vectors)
    embedder = Embedder.load(choose_engine(EmbedderConfig()))
    stored, rows = load(vectors, embedder.dimension)
    return Material(embedder, stored, rows, queries(embedder)[:asked])


def exact_rows(vectors: np.ndarray, asked: Vectors) -> Rows:
    """The true ten nearest rows of each query (q, 10)."""
    import faiss

    rows: Rows = faiss.knn(asked, vectors.astype(np.float32), K, metric=faiss.METRIC_INNER_PRODUCT)[1]
    return rows


def recall_of(found: Rows, truth: Rows) -> float:
    """The share of true neighbours that were found."""
    shared = [len(set(own) & set(true)) for own, true in zip(found.tolist(), truth.tolist(), strict=True)]
    return sum(shared) / truth.size


def cpus() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
