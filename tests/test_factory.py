"""What a factory string means, and what is refused before any work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ray_jobs.errors import RejectedError, UsageError
from ray_jobs.index.factory import IndexType, bytes_a_vector, list_count, training_size
from ray_jobs.index.ladder import Wanted, choose
from ray_jobs.index.template import train


@pytest.mark.parametrize("vectors", [1, 39, 1_000, 100_000, 10**9])
def test_there_is_training_data_for_every_list(vectors: int) -> None:
    lists = list_count(vectors)
    assert lists >= 1
    assert training_size(IndexType(f"IVF{lists},SQ8", ""), vectors) >= min(vectors, 39 * lists)


def test_the_number_of_lists_is_filled_in() -> None:
    assert choose("IVF{n},Flat", Wanted(10_000, 8)).factory == f"IVF{list_count(10_000)},Flat"


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
        choose(requested, Wanted(100, 8))
    assert f"index_type={requested}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("factory", "size"),
    [
        ("Flat", 1536),
        ("IVF16,SQ8", 384 + 8),
        ("RR384,IVF16_HNSW32,RaBitQ4", 212 + 8),
        ("IVF16,PQ192x4fs", 96 + 8),
        ("OPQ48_384,IVF16,PQ48x8np", 48 + 8),
        ("HNSW32", 1536 + 256),
    ],
)
def test_the_bytes_of_a_vector_are_its_code_and_its_number(factory: str, size: int) -> None:
    assert bytes_a_vector(IndexType(factory, ""), 384) == size


def test_too_small_a_sample_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match="cannot train it on 3 vectors"):
        train(IndexType("IVF16,Flat", ""), np.eye(3, 8, dtype=np.float32), 8, tmp_path / "t")
