"""Vector indices behind one interface: Tandem's snapshots, and the peers, all over the same float32 vectors.

`find` gives row numbers only, for Tandem as for the others; reading the text of the hits is timed apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ray_jobs.index.search import Queries, SearchConfig, Statistics, make_plan
from ray_jobs.index.snapshot import Snapshot

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
K = 10
PROBES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
WIDTHS = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)


class System(Protocol):
    """One index, and the setting that buys recall with time."""

    name: str
    setting: str  # what the ladder sets
    ladder: tuple[int, ...]

    def find(self, queries: Vectors, effort: int, threads: int) -> Rows:
        """Row numbers (b, 10) of the nearest vectors, -1 where fewer were found."""
        ...


class TandemIndex:
    """A Tandem snapshot; shard after shard in one process."""

    name: str
    setting: str
    ladder: tuple[int, ...]

    def __init__(self, snapshot: Snapshot, factory: str) -> None:
        self.snapshot = snapshot
        shards = len(snapshot.manifest.shards)
        self.name = f"Tandem, {factory}, {shards} shard{'s' if shards > 1 else ''}"
        self.setting, self.ladder = ("nprobe", PROBES) if "IVF" in factory else ("", (0,))
        self._starts = np.r_[0, np.cumsum([shard.rows for shard in snapshot.manifest.shards])]

    def find(self, queries: Vectors, effort: int, threads: int) -> Rows:
        """Merged and rescored, as every search of Tandem is."""
        _faiss_threads(threads)
        config = self._config(effort)
        plan = make_plan(self.snapshot.manifest, config, None, 0)
        listed = self.snapshot.ranking(self._prepared(queries), plan, Statistics()).candidates
        found = np.full((len(queries), K), -1, np.int64)
        place = np.arange(len(listed)) - np.searchsorted(listed.query, listed.query)
        found[listed.query, place] = self._starts[listed.shard] + listed.row
        return found

    def hits(self, queries: Vectors, effort: int, threads: int) -> int:
        """The whole search, the text and metadata of every hit included; returns how many."""
        _faiss_threads(threads)
        return sum(map(len, self.snapshot.search_prepared(self._prepared(queries), self._config(effort))))

    @staticmethod
    def _config(effort: int) -> SearchConfig:
        return SearchConfig(mode="dense", by="chunk", k=K, nprobe=effort or None)

    @staticmethod
    def _prepared(queries: Vectors) -> Queries:
        return Queries(queries, [[] for _ in queries])


class Faiss:
    """One FAISS index of a given type with all vectors, used directly."""

    name: str
    setting: str
    ladder: tuple[int, ...]

    def __init__(self, factory: str, template: Path, vectors: Vectors) -> None:
        import faiss

        self.name = f"FAISS, {factory}, one index"
        self.setting, self.ladder = ("nprobe", PROBES) if "IVF" in factory else ("efSearch", WIDTHS)
        if factory == "Flat":
            self.setting, self.ladder = "", (0,)
        self._index: Any = faiss.read_index(str(template))
        self._index.add(vectors)

    def find(self, queries: Vectors, effort: int, threads: int) -> Rows:
        """Search with the setting given."""
        import faiss

        _faiss_threads(threads)
        parameters = None
        if self.setting == "nprobe":
            parameters = faiss.SearchParametersIVF(nprobe=effort)
        elif self.setting:
            parameters = faiss.SearchParametersHNSW(efSearch=effort)
        rows: Rows = self._index.search(queries, K, params=parameters)[1]
        return rows


class HnswLib:
    """hnswlib with M = 16 and ef_construction = 200, the values of its own examples."""

    name: str
    setting: str
    ladder: tuple[int, ...]

    def __init__(self, vectors: Vectors) -> None:
        import hnswlib

        self.name, self.setting, self.ladder = "hnswlib, M 16", "ef", WIDTHS
        self._index: Any = hnswlib.Index(space="ip", dim=vectors.shape[1])
        self._index.init_index(max_elements=len(vectors), M=16, ef_construction=200, random_seed=0)
        self._index.add_items(vectors)

    def find(self, queries: Vectors, effort: int, threads: int) -> Rows:
        """Search with the setting given."""
        self._index.set_ef(effort)
        rows: Rows = self._index.knn_query(queries, K, num_threads=threads)[0].astype(np.int64)
        return rows


class USearch:
    """usearch with its default connectivity and precision."""

    name: str
    setting: str
    ladder: tuple[int, ...]

    def __init__(self, vectors: Vectors) -> None:
        from usearch.index import Index

        self._index: Any = Index(ndim=vectors.shape[1], metric="ip")
        self._index.add(np.arange(len(vectors)), vectors)
        self.name, self.setting, self.ladder = f"usearch, {self._index.dtype.name.lower()}", "expansion", WIDTHS

    def find(self, queries: Vectors, effort: int, threads: int) -> Rows:
        """Search with the setting given; always as a batch, since a single query has another return type."""
        self._index.expansion_search = effort
        matches = self._index.search(queries, K, threads=threads)
        rows: Rows = np.atleast_2d(np.asarray(matches.keys)).astype(np.int64)
        return rows


class LanceDB:
    """LanceDB on the local disk, IVF_HNSW_SQ with its default parameters; it takes the threads it wants."""

    name: str
    setting: str
    ladder: tuple[int, ...]

    def __init__(self, vectors: Vectors, folder: Path) -> None:
        import lancedb
        import pyarrow as pa

        values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        table = pa.table({"row": pa.array(np.arange(len(vectors))), "vector": values})
        self._table: Any = lancedb.connect(str(folder)).create_table("vectors", table)
        self._table.create_index(metric="dot", index_type="IVF_HNSW_SQ")
        self.name, self.setting, self.ladder = "LanceDB, IVF_HNSW_SQ (own threads)", "ef", WIDTHS

    def find(self, queries: Vectors, effort: int, threads: int) -> Rows:
        """Search one query after the other, as its interface has it."""
        found = np.full((len(queries), K), -1, np.int64)
        for place, query in enumerate(queries):
            search = self._table.search(query, vector_column_name="vector").distance_type("dot").ef(effort)
            rows = search.select(["row", "_distance"]).limit(K).to_arrow()["row"].to_numpy()
            found[place, : len(rows)] = rows
        return found


def _faiss_threads(threads: int) -> None:
    import faiss

    faiss.omp_set_num_threads(threads)
