"""Small snapshots of every rung of the ladder, over vectors that lie in clusters as those of text do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from small_index import WORDS, SmallDocument, VectorEmbedder, build_index

from ray_jobs.index.hits import Hit
from ray_jobs.index.ladder import RUNGS, Wanted
from ray_jobs.index.manifest import commit
from ray_jobs.index.search import SearchConfig
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.storage import LocalStorage

DIMENSION = 32
COUNT = 4_000
LISTS = 16
CODES = [rung.factory(Wanted(COUNT, DIMENSION)) or "" for rung in RUNGS]
FACTORIES = [code.replace("IVF102", f"IVF{LISTS}{graph}") for code in CODES for graph in ("", "_HNSW32")]
EMBEDDER = VectorEmbedder(DIMENSION)


def vectors(count: int = COUNT, seed: int = 0) -> np.ndarray:
    """Vectors (count, d) of length 1 around 60 centres."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((60, DIMENSION))
    found = centres[rng.integers(60, size=count)] + 0.7 * rng.standard_normal((count, DIMENSION))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def snapshot(folder: Path, factory: str, shards: int, count: int = COUNT) -> Snapshot:
    """A published snapshot of documents of two chunks each."""
    rng = np.random.default_rng(1)
    chunks = vectors(count).tolist()
    documents = [
        SmallDocument(f"d{n:04d}", [(str(rng.choice(WORDS)), vector) for vector in chunks[2 * n : 2 * n + 2]])
        for n in range(count // 2)
    ]
    storage = LocalStorage(folder / f"store-{shards}")
    commit(storage, build_index(storage, folder / f"build-{shards}", documents, shards, factory, nprobe=4))
    return Snapshot.open(storage, "small")


def queries(count: int) -> list[str]:
    """Queries that are vectors and words at once, for `VectorEmbedder`."""
    return [" ".join(map(str, vector)) + "| apple plum" for vector in vectors(count, seed=5).tolist()]


def found(opened: Snapshot, texts: Sequence[str], config: SearchConfig) -> list[list[tuple[str, int, float]]]:
    """Chunk, rank and score of the hits of each query."""

    def key(hit: Hit) -> tuple[str, int, float]:
        return hit.chunk_id, hit.rank, hit.score

    return [[key(hit) for hit in hits] for hits in opened.search(list(texts), config, EMBEDDER)]
