"""The ladder of index types, and which rung a snapshot takes: by count, dimension, shards, memory and recall wanted.

    Flat                              4 bytes a dimension, exact; up to FLAT_LIMIT vectors
    IVF{n}_HNSW32,SQ8                 1 byte a dimension
    RR{d},IVF{n}_HNSW32,RaBitQ4       4 bits a dimension
    IVF{n}_HNSW32,PQ{d/2}x4fs         4 bits for two dimensions, scanned in registers; where shards have full lists
    OPQ{m}_{d},IVF{n}_HNSW32,PQ{m}x8  8 bits for 8 dimensions, then for 16

All but Flat are rescored from vectors.f16, which stay on disk.

Guaranteed: pure; a larger budget never gives a coarser rung, nor does a higher recall target; what is chosen fits the
budget, or a UsageError says what would. Not guaranteed: that the rung reaches the target on this corpus; the recall
gate of the ingest job measures it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ray_jobs.errors import UsageError
from ray_jobs.index.factory import IndexType, check_factory, index_bytes, list_count

FLAT_LIMIT = 50_000  # vectors up to which exact search is the better choice
# Choosing lists by a graph costs a query as much as comparing it with so many centroids one by one.
_FLAT_LISTS = 4_096
FINE_RECALL = 0.99  # above which the finest code comes first
_LEAST_CODED = 10_000  # vectors below which codebooks learn too little
_FULL_LIST = 32  # rows of a list in a shard from which on blocks are mostly full


@dataclass(frozen=True)
class Wanted:
    """What the index is for."""

    vectors: int  # over all shards
    dimension: int
    shards: int = 1
    budget: int | None = None  # bytes of memory for vectors and quantiser where they are searched; None: no bound
    recall_target: float = 0.95


@dataclass(frozen=True)
class Rung:
    """One kind of code, finer than the next."""

    says: str
    code: Callable[[int], str | None]  # of a dimension; None where it has none such
    transform: Callable[[int], str] = lambda dimension: ""
    in_blocks: bool = False

    def factory(self, wanted: Wanted) -> str | None:
        """The factory string; None where this rung is not for such an index."""
        code = self.code(wanted.dimension)
        lists = list_count(wanted.vectors)
        if code is None or (self.in_blocks and wanted.vectors < _FULL_LIST * lists * wanted.shards):
            return None
        quantiser = f"IVF{lists}" if lists <= _FLAT_LISTS else f"IVF{lists}_HNSW32"
        return f"{self.transform(wanted.dimension)}{quantiser},{code}"


def _product(dimensions: int) -> Rung:
    """A byte for so many dimensions."""

    def code(dimension: int) -> str | None:
        # Polysemous codes ("np" leaves them out) would be trained for a filter that no search here uses.
        return f"PQ{dimension // dimensions}x8np" if dimension % dimensions == 0 else None

    return Rung(f"a byte for {dimensions} dimensions", code, lambda d: f"OPQ{d // dimensions}_{d},")


BYTE = Rung("a byte a dimension", lambda dimension: "SQ8")
HALF = Rung("four bits a dimension", lambda dimension: "RaBitQ4", lambda dimension: f"RR{dimension},")
BLOCKS = Rung(
    "four bits for two dimensions",
    lambda dimension: f"PQ{dimension // 2}x4fs" if dimension % 2 == 0 else None,
    in_blocks=True,
)
RUNGS = (BYTE, HALF, BLOCKS, _product(8), _product(16))
"""From the finest code to the coarsest."""


def choose(requested: str, wanted: Wanted) -> IndexType:
    """The index type that is asked for, or the one that fits.

    `requested` is "auto" or a FAISS factory string; `{n}` in it stands for the number of inverted lists.
    Raises UsageError for a string that FAISS or Tandem cannot use, and for a budget that nothing fits.
    """
    if requested == "auto":
        return _climb(wanted)
    factory = requested.replace("{n}", str(list_count(wanted.vectors)))
    check_factory(factory, wanted.dimension)
    chosen = IndexType(factory, "given")
    if chosen.lists > max(1, wanted.vectors):
        raise UsageError(
            f"index_type={requested}: {chosen.lists:,} inverted lists for {wanted.vectors:,} vectors; expected at most "
            f"one list a vector, use 'auto' or 'IVF{{n}}_HNSW32,SQ8'"
        )
    check_budget(chosen, wanted)
    return chosen


def check_budget(chosen: IndexType, wanted: Wanted) -> None:
    """Raise UsageError where the vectors of an index of this type do not fit the budget."""
    needed = size(chosen, wanted)
    if wanted.budget is not None and needed > wanted.budget:
        raise UsageError(
            f"memory_budget={wanted.budget}: {wanted.vectors:,} vectors in {chosen.factory} need {needed:,} bytes; "
            f"raise it, or leave index_type at 'auto', which takes shorter codes, and use --retrain"
        )


def size(chosen: IndexType, wanted: Wanted) -> int:
    """Bytes of memory that an index of this type needs."""
    return index_bytes(chosen, wanted.vectors, wanted.dimension, wanted.shards)


def _climb(wanted: Wanted) -> IndexType:
    """Exact search for few vectors; else the finest code that fits, from the one on that is fastest at this recall."""
    fitting = [chosen for chosen in ladder(wanted) if wanted.budget is None or size(chosen, wanted) <= wanted.budget]
    if fitting:
        return fitting[0]
    least = min(size(chosen, wanted) for chosen in ladder(wanted))
    raise UsageError(
        f"memory_budget={wanted.budget}: {wanted.vectors:,} vectors of {wanted.dimension} dimensions need {least:,} "
        f"bytes in the shortest codes; raise it, or use an embedder of fewer dimensions"
    )


def ladder(wanted: Wanted) -> list[IndexType]:
    """The types that come into question, the first choice first, each coarser than the one before."""
    count = f"{wanted.vectors:,} vectors"
    found = [IndexType("Flat", f"{count}: exact search is fast enough")] if wanted.vectors <= FLAT_LIMIT else []
    if wanted.vectors < _LEAST_CODED:
        return found
    lists = list_count(wanted.vectors)
    usable = [(rung, factory) for rung in RUNGS if (factory := rung.factory(wanted)) is not None]
    start = _fastest([rung for rung, _ in usable], wanted)
    return found + [
        IndexType(factory, f"{count}: {lists:,} lists of {rung.says}, rescored from the stored vectors")
        for rung, factory in usable[start:]
    ]


def _fastest(usable: list[Rung], wanted: Wanted) -> int:
    """Where to begin without a bound on memory.

    Hits are rescored from the stored vectors, so the code decides what is scanned, not what is answered. On 200,000
    embeddings of documentation at recall@10 0.95, four bits for two dimensions were searched five times as fast in
    batches as a byte for each (tests/bench/results.md).
    """
    return usable.index(BLOCKS) if BLOCKS in usable and wanted.recall_target <= FINE_RECALL else 0
