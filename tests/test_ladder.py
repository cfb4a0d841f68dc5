"""The choice of a rung: by count, dimension, shards, memory and the recall wanted."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ray_jobs.errors import UsageError
from ray_jobs.index.factory import IndexType, check_factory
from ray_jobs.index.ladder import FLAT_LIMIT, RUNGS, Wanted, check_budget, choose, ladder, size

CODES = (r"Flat$", r",SQ8$", r",RaBitQ4$", r",PQ\d+x4fs$", r",PQ\d+x8np$")
wishes = st.builds(
    Wanted,
    vectors=st.integers(1, 10**9),
    dimension=st.integers(1, 64).map(lambda n: 16 * n),
    shards=st.integers(1, 2_000),
    recall_target=st.floats(0.5, 1.0),
)


def fineness(chosen: IndexType, wanted: Wanted) -> tuple[int, int]:
    """The lower, the coarser: its place in the ladder, and the bytes of a code."""
    kind = next(number for number, code in enumerate(CODES) if re.search(code, chosen.factory))
    parts = re.search(r"PQ(\d+)x8", chosen.factory)
    return -kind, int(parts[1]) if parts else 0


@pytest.mark.parametrize("vectors", [1, FLAT_LIMIT])
def test_few_vectors_are_searched_exactly(vectors: int) -> None:
    assert choose("auto", Wanted(vectors, 384)).factory == "Flat"


@pytest.mark.parametrize(
    ("wanted", "factory"),
    [
        (Wanted(1_000_000, 384), "IVF4000,PQ192x4fs"),
        (Wanted(1_000_000, 385), "IVF4000,SQ8"),
        (Wanted(1_000_000, 384, recall_target=0.999), "IVF4000,SQ8"),
        (Wanted(1_000_000, 384, budget=100_000_000), "OPQ48_384,IVF4000,PQ48x8np"),
        (Wanted(1_000_000, 384, budget=300_000_000, recall_target=1), "RR384,IVF4000,RaBitQ4"),
        (Wanted(100_000_000, 768, shards=50), "IVF40000_HNSW32,PQ384x4fs"),
        # With a row of a list in a shard, blocks would be empty but for it.
        (Wanted(1_000_000_000, 384, shards=1_000), "IVF126491_HNSW32,SQ8"),
        (Wanted(1_000_000_000, 384, shards=1_000, budget=300 * 10**9), "RR384,IVF126491_HNSW32,RaBitQ4"),
        (Wanted(1_000_000_000, 384, shards=1_000, budget=60 * 10**9), "OPQ48_384,IVF126491_HNSW32,PQ48x8np"),
    ],
)
def test_the_rungs_of_some_corpora(wanted: Wanted, factory: str) -> None:
    chosen = choose("auto", wanted)
    assert chosen.factory == factory
    assert f"{wanted.vectors:,} vectors" in chosen.reason


@given(wanted=wishes, budgets=st.tuples(st.integers(1 << 20, 1 << 42), st.integers(1 << 20, 1 << 42)))
def test_a_larger_budget_never_gives_a_coarser_code(wanted: Wanted, budgets: tuple[int, int]) -> None:
    small, large = (Wanted(**{**vars(wanted), "budget": budget}) for budget in sorted(budgets))
    try:
        tight = choose("auto", small)
    except UsageError:
        assume(False)
    assert size(tight, small) <= sorted(budgets)[0]
    assert fineness(choose("auto", large), wanted) >= fineness(tight, wanted)
    assert fineness(choose("auto", wanted), wanted) >= fineness(tight, wanted)


@given(wanted=wishes, target=st.floats(0.5, 1.0))
def test_a_higher_recall_never_gives_a_coarser_code(wanted: Wanted, target: float) -> None:
    low, high = (Wanted(**{**vars(wanted), "recall_target": t}) for t in sorted((target, wanted.recall_target)))
    assert fineness(choose("auto", high), wanted) >= fineness(choose("auto", low), wanted)


@given(wanted=wishes)
def test_each_rung_is_coarser_than_the_one_before(wanted: Wanted) -> None:
    places = [fineness(chosen, wanted) for chosen in ladder(wanted)]
    assert places == sorted(places, reverse=True)
    assert len(set(places)) == len(places) >= 1


@given(wanted=wishes)
def test_a_budget_that_nothing_fits_is_told_what_would(wanted: Wanted) -> None:
    with pytest.raises(UsageError, match="memory_budget=1: ") as caught:
        choose("auto", Wanted(**{**vars(wanted), "budget": 1}))
    needed = re.search(r"need ([\d,]+) bytes", str(caught.value))
    assert needed is not None
    enough = Wanted(**{**vars(wanted), "budget": int(needed[1].replace(",", ""))})
    assert size(choose("auto", enough), enough) == enough.budget


@pytest.mark.parametrize("dimension", [64, 384, 768, 1_000, 1_024, 1_536, 4_096])
@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.says)
def test_faiss_takes_every_rung(dimension: int, rung: object) -> None:
    factory = rung.factory(Wanted(200_000, dimension))  # type: ignore[attr-defined]
    if factory is not None:
        check_factory(factory, dimension)
    assert factory is not None or dimension % 16


def test_a_type_that_is_given_must_fit_as_well() -> None:
    wanted = Wanted(1_000_000, 384, budget=200_000_000)
    with pytest.raises(UsageError, match=r"1,000,000 vectors in IVF4000,SQ8 need 39[0-9],[0-9,]+ bytes"):
        choose("IVF{n},SQ8", wanted)
    check_budget(IndexType("IVF4000,PQ96x8", ""), wanted)
