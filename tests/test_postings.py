from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.errors import CorruptError, NotFoundError
from ray_jobs.index import postings as module
from ray_jobs.index.postings import FILES, Postings, merge_postings, write_postings

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

DOCUMENTS = st.lists(
    st.lists(st.sampled_from([*"abc", "é", "字", "𝒳", "\uffff", "zz", "a.b"]), max_size=12), max_size=20
)


def written(tmp_path_factory: pytest.TempPathFactory, documents: list[list[str]]) -> Path:
    folder = tmp_path_factory.mktemp("shard") / "postings"
    write_postings(folder, iter(documents))
    return folder


@settings(deadline=None)  # files are written: a loaded disk is no failure
@given(DOCUMENTS)
def test_every_count_is_read_back(tmp_path_factory: pytest.TempPathFactory, documents: list[list[str]]) -> None:
    postings = Postings.open(written(tmp_path_factory, documents))
    vocabulary = {term for terms in documents for term in terms}
    assert postings.lengths.tolist() == [len(terms) for terms in documents]
    assert postings.term_count == len(vocabulary)
    for term in [*vocabulary, "absent", ""]:
        rows, frequencies = postings.lookup(term)
        expected = [(row, Counter(terms)[term]) for row, terms in enumerate(documents) if term in terms]
        assert list(zip(rows.tolist(), frequencies.tolist(), strict=True)) == expected


@settings(deadline=None)  # files are written: a loaded disk is no failure
@given(DOCUMENTS, st.randoms())
def test_dead_rows_are_not_counted(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[str]], random: Random
) -> None:
    postings = Postings.open(written(tmp_path_factory, documents))
    alive = np.array([random.random() < 0.5 for _ in documents], np.bool_)
    kept = [terms for terms, lives in zip(documents, alive, strict=True) if lives]
    assert postings.total(alive) == (len(kept), sum(map(len, kept)))
    assert postings.document_frequency("a", alive) == sum("a" in terms for terms in kept)


@settings(deadline=None)
@given(st.lists(DOCUMENTS, max_size=4), st.randoms())
def test_merged_postings_are_to_the_byte_those_of_the_rows_that_are_left(
    tmp_path_factory: pytest.TempPathFactory, shards: list[list[list[str]]], random: Random
) -> None:
    kept = [[row for row in range(len(documents)) if random.random() < 0.6] for documents in shards]
    opened = [Postings.open(written(tmp_path_factory, documents)) for documents in shards]
    merged = tmp_path_factory.mktemp("merged") / "postings"
    merge_postings(merged, [(one, np.array(rows, np.int64)) for one, rows in zip(opened, kept, strict=True)])
    anew = written(
        tmp_path_factory, [documents[row] for documents, rows in zip(shards, kept, strict=True) for row in rows]
    )
    for name in FILES:
        assert (merged / name).read_bytes() == (anew / name).read_bytes()


@settings(deadline=None)
@given(DOCUMENTS, st.randoms())
def test_the_commonest_terms_are_those_of_live_rows(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[str]], random: Random
) -> None:
    postings = Postings.open(written(tmp_path_factory, documents))
    alive = np.array([random.random() < 0.5 for _ in documents], np.bool_)
    found = postings.commonest(100, alive)
    assert found == {term: postings.document_frequency(term, alive) for term in found}
    assert set(found) == {term for terms in documents for term in terms}


def test_the_size_of_the_counting_batches_does_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [["b", "a", "b"], [], ["c"], ["a", "a"], ["b"]] * 3
    write_postings(tmp_path / "one", documents)
    monkeypatch.setattr(module, "_BATCH_TERMS", 2)
    write_postings(tmp_path / "many", documents)
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()


def test_frequencies_saturate_and_lengths_do_not(tmp_path: Path) -> None:
    write_postings(tmp_path, [["a"] * 70_000])
    postings = Postings.open(tmp_path)
    assert postings.lookup("a")[1].tolist() == [65_535]
    assert postings.lengths.tolist() == [70_000]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_postings(tmp_path, [["a"]])
    (tmp_path / "rows.i32").unlink()
    with pytest.raises(NotFoundError, match=r"rows\.i32 is missing"):
        Postings.open(tmp_path)


@pytest.mark.parametrize(
    ("name", "kept"), [("rows.i32", 3), ("rows.i32", 4), ("frequencies.u16", 2), ("terms.arrow", 20)]
)
def test_a_cut_file_is_corrupt(tmp_path: Path, name: str, kept: int) -> None:
    write_postings(tmp_path, [["a", "b"], ["a"]])
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:kept])
    with pytest.raises(CorruptError, match=str(tmp_path)):
        Postings.open(tmp_path)
