"""What a FAISS factory string means here: its lists, its size in memory, what it is trained on, whether it can be used.

Guaranteed: pure; a factory string that FAISS refuses, or that this project cannot shard, is a UsageError before any
work. Not guaranteed: that a type reaches a recall; the recall gate of the ingest job measures it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from ray_jobs.errors import UsageError

# nlist = 4 * sqrt(n), the least of the 4..16 that FAISS's guide to choosing an index names. Every list is in every
# shard: with more lists, a shard of a large corpus would have hardly a row in each of them.
_LISTS_PER_ROOT = 4
_TRAINING_PER_LIST = 39  # vectors a centroid below which FAISS warns
_TRAINING_FLOOR = 20_000  # enough for the codebooks of product quantisers
_TRAINING_GOAL = 64  # vectors a centroid that are sampled
_NUMBER_BYTES = 8
_GRAPH_BYTES = 256  # HNSW32: 64 neighbours on the lowest level, 4 bytes each
_BLOCK = 32  # codes that a fast-scan type stores together: each list is filled up to whole blocks


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

    @property
    def in_blocks(self) -> bool:
        """Whether codes are stored in blocks that are scanned in registers."""
        return re.search(r"x4fs|RaBitQfs", self.factory) is not None


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

    # A code is as long however many lists there are, and few are sooner made.
    index = make_index(re.sub(r"IVF\d+", "IVF1", index_type.factory), dimension)
    lists = faiss.try_extract_index_ivf(index)
    if lists is not None:
        return int(lists.code_size) + _NUMBER_BYTES
    try:
        return int(index.sa_code_size())
    except RuntimeError:
        return 4 * dimension + _GRAPH_BYTES


def index_bytes(index_type: IndexType, vectors: int, dimension: int, shards: int = 1) -> int:
    """Bytes of `vectors` in `shards` shards and of one quantiser, as they lie in memory while they are searched."""
    each = bytes_a_vector(index_type, dimension)
    if not index_type.lists:
        return vectors * each
    filling = shards * index_type.lists * (_BLOCK - 1) // 2 * (each - _NUMBER_BYTES) if index_type.in_blocks else 0
    return vectors * each + filling + quantiser_bytes(index_type, dimension)


def quantiser_bytes(index_type: IndexType, dimension: int) -> int:
    """Bytes of the centroids of the inverted lists, and of the graph over them where there is one."""
    graph = _GRAPH_BYTES if "_HNSW" in index_type.factory else 0
    return index_type.lists * (4 * dimension + graph)


def check_factory(factory: str, dimension: int) -> None:
    """Raise UsageError unless FAISS can make `factory` at `dimension` with inner products."""
    known = "expected 'auto', 'Flat', 'IVF{n}_HNSW32,SQ8', 'HNSW32' or another FAISS factory string"
    if "IDMap" in factory:
        raise UsageError(f"index_type={factory}: rows are numbered by Tandem; {known} without IDMap")
    try:
        make_index(factory, dimension)
    except RuntimeError as error:
        reason = str(error).rsplit(": ", 1)[-1].strip()
        raise UsageError(
            f"index_type={factory}: FAISS refuses it at dimension {dimension} ({reason}); {known}"
        ) from None


def make_index(factory: str, dimension: int) -> Any:
    """An empty FAISS index of inner products; RuntimeError where FAISS makes none."""
    import faiss

    return faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
