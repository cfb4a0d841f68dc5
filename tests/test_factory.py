"""The choice of an index type, and what is refused before any work."""

from __future__ import annotations

import pytest

from ray_jobs.errors import RejectedError, UsageError
from ray_jobs.index.factory import (
    FLAT_LIMIT,
    IndexType,
    bytes_a_vector,
    check_factory,
    choose,
    list_count,
    training_size,
)


@pytest.mark.parametrize("vectors", [0, 1, FLAT_LIMIT])
def test_few_vectors_are_searched_exactly(vectors: int) -> None:
    assert choose("auto", vectors, 384).factory == "Flat"


@pytest.mark.parametrize(
    ("vectors", "dimension", "factory"),
    [
        (1_000_000, 384, "IVF4000,PQ192x4fs"),
        (100_000_000, 768, "IVF40000_HNSW32,PQ384x4fs"),
        (1_000_000, 385, "IVF4000,SQ8"),
    ],
)
def test_many_vectors_get_inverted_lists_of_short_codes(vectors: int, dimension: int, factory: str) -> None:
    chosen = choose("auto", vectors, dimension)
    assert chosen.factory == factory
    assert f"{vectors:,} vectors" in chosen.reason
    check_factory(chosen.factory, dimension)


@pytest.mark.parametrize("vectors", [1, 39, 1_000, 100_000, 10**9])
def test_there_is_training_data_for_every_list(vectors: int) -> None:
    lists = list_count(vectors)
    assert lists >= 1
    assert training_size(IndexType(f"IVF{lists},SQ8", ""), vectors) >= min(vectors, 39 * lists)


def test_the_number_of_lists_is_filled_in() -> None:
    assert choose("IVF{n},Flat", 10_000, 8).factory == f"IVF{list_count(10_000)},Flat"


@pytest.mark.parametrize(
    ("requested", "words"),
    [
        ("Flatt", "FAISS refuses it at dimension 8"),
        ("PQ3x8", "FAISS refuses it at dimension 8"),
        ("IDMap,Flat", "without IDMap"),
        ("IVF5000,SQ8", "5,000 inverted lists for 100 vectors"),
    ],
)
def test_an_impossible_type_is_refused_with_what_is_possible(requested: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        choose(requested, 100, 8)
    assert f"index_type={requested}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("factory", "size"),
    [("Flat", 1536 + 8), ("IVF16,SQ8", 384 + 9), ("IVF16,PQ192x4fs", 96 + 9), ("HNSW32", 1536 + 256)],
)
def test_the_bytes_of_a_vector_are_its_code_and_its_number(factory: str, size: int) -> None:
    assert bytes_a_vector(IndexType(factory, ""), 384) == size


def test_too_small_a_sample_is_refused_in_one_line(tmp_path: object) -> None:
    import numpy as np

    from ray_jobs.index.template import train

    with pytest.raises(RejectedError, match="cannot train it on 3 vectors"):
        train(IndexType("IVF16,Flat", ""), np.eye(3, 8, dtype=np.float32), 8, tmp_path / "t")  # type: ignore[operator]
