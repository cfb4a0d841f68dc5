"""Which FAISS index a snapshot uses, from the number of vectors or from the user.

Guaranteed: pure; a factory string that FAISS refuses, or that this project cannot shard, is a UsageError before any
work. Not guaranteed: that a type given by the user reaches a recall; the recall gate of the ingest job measures it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ray_jobs.errors import UsageError

FLAT_LIMIT = 50_000  # vectors up to which exact search is the better choice
_LISTS_PER_ROOT = 4  # nlist = 4 * sqrt(n), the middle of FAISS's recommended 4..16 for under a million vectors
# Choosing lists by a graph costs a query as much as comparing it with so many centroids one by one.
_FLAT_LISTS = 4_096
_TRAINING_PER_LIST = 39  # vectors a centroid below which FAISS warns
_TRAINING_FLOOR = 20_000  # enough for the codebooks of product quantisers
_NUMBER_BYTES = 8
_GRAPH_BYTES = 256  # HNSW32: 64 neighbours on the lowest level, 4 bytes each
_TRAINING_GOAL = 64  # vectors a centroid that are sampled


@dataclass(frozen=True)
class IndexType:
    """A choice and its reason."""

    factory: str
    reason: str

    @property
    def is_graph(self) -> bool:
        """Whether a shard is a graph of its own, so that sharding changes which neighbours are found."""
        return self.factory.startswith("HNSW") or self.factory.startswith("NSG")

    @property
    def lists(self) -> int:
        """Inverted lists, 0 for a type without."""
        match = re.search(r"IVF(\d+)", self.factory)
        return int(match.group(1)) if match else 0

    @property
    def is_exact(self) -> bool:
        """Whether search is exact by construction."""
        return self.factory == "Flat"


def choose(requested: str, vectors: int, dimension: int) -> IndexType:
    """The index type for `vectors` embeddings of `dimension`, over all shards.

    `requested` is "auto" or a FAISS factory string; `{n}` in it stands for the number of inverted lists.
    Raises UsageError for a string that FAISS or Tandem cannot use.
    """
    if requested == "auto":
        return _choose(vectors, dimension)
    factory = requested.replace("{n}", str(list_count(vectors)))
    check_factory(factory, dimension)
    chosen = IndexType(factory, "given")
    if chosen.lists > max(1, vectors):
        raise UsageError(
            f"index_type={requested}: {chosen.lists:,} inverted lists for {vectors:,} vectors; expected at most one "
            f"list a vector, use 'auto' or 'IVF{{n}}_HNSW32,SQ8'"
        )
    return chosen


def _choose(vectors: int, dimension: int) -> IndexType:
    """Exact search for few vectors; else lists of codes so short that they are scanned in registers.

    Hits are rescored from the stored vectors, so the code decides what is scanned, not what is answered. On 200,000
    embeddings of documentation at recall@10 0.95, four bits for two dimensions were searched five times as fast in
    batches as a byte for each (tests/bench/results.md).
    """
    if vectors <= FLAT_LIMIT:
        return IndexType("Flat", f"{vectors:,} vectors: exact search is fast enough")
    lists = list_count(vectors)
    quantiser = f"IVF{lists}" if lists <= _FLAT_LISTS else f"IVF{lists}_HNSW32"
    if dimension % 2:
        return IndexType(f"{quantiser},SQ8", f"{vectors:,} vectors: {lists:,} lists of a byte a dimension")
    reason = f"{vectors:,} vectors: {lists:,} lists of four bits for two dimensions, rescored from the stored vectors"
    return IndexType(f"{quantiser},PQ{dimension // 2}x4fs", reason)


def list_count(vectors: int) -> int:
    """Inverted lists for `vectors`: 4 sqrt(n), and never more than training data allows."""
    return max(1, min(round(_LISTS_PER_ROOT * math.sqrt(vectors)), vectors // _TRAINING_PER_LIST))


def training_size(index_type: IndexType, vectors: int) -> int:
    """How many vectors to sample for training; 0 where nothing is trained."""
    if index_type.is_exact or (index_type.is_graph and "," not in index_type.factory):
        return 0
    return min(vectors, max(_TRAINING_FLOOR, _TRAINING_GOAL * index_type.lists))


def bytes_a_vector(index_type: IndexType, dimension: int) -> int:
    """Resident bytes of one vector: its code and its number, or in a graph the vector itself and its neighbours."""
    import faiss

    index = faiss.index_factory(dimension, index_type.factory, faiss.METRIC_INNER_PRODUCT)
    try:
        return int(index.sa_code_size()) + _NUMBER_BYTES
    except RuntimeError:
        return 4 * dimension + _GRAPH_BYTES


def check_factory(factory: str, dimension: int) -> None:
    """Raise UsageError unless FAISS can make `factory` at `dimension` with inner products."""
    import faiss

    known = "expected 'auto', 'Flat', 'IVF{n}_HNSW32,SQ8', 'HNSW32' or another FAISS factory string"
    if "IDMap" in factory:
        raise UsageError(f"index_type={factory}: rows are numbered by Tandem; {known} without IDMap")
    try:
        faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        reason = str(error).rsplit(": ", 1)[-1].strip()
        raise UsageError(
            f"index_type={factory}: FAISS refuses it at dimension {dimension} ({reason}); {known}"
        ) from None
