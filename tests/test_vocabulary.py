"""Vocabularies: what they say of a term is what the postings say, and what they do not know they say too."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.index.postings import Postings, write_postings
from ray_jobs.index.vocabulary import NOTHING_KNOWN, Vocabulary, commonest, together

TERMS = ("apfel", "birne", "feige", "梨", "zitrone")
Rows = st.lists(st.lists(st.sampled_from(TERMS), max_size=6), min_size=1, max_size=12)


@settings(max_examples=50, deadline=None)
@given(shards=st.lists(Rows, min_size=1, max_size=4), limit=st.integers(0, 6))
def test_a_frequency_is_that_of_all_shards_or_is_not_known(shards: list[list[list[str]]], limit: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        opened = []
        for number, rows in enumerate(shards):
            write_postings(Path(name) / str(number), rows)
            opened.append(Postings.open(Path(name) / str(number)))
        whole = together([commonest(postings, limit) for postings in opened], limit)
        assert len(whole.frequencies) <= limit
        for term in (*TERMS, "unheard"):
            if (known := whole.of(term)) is not None:
                assert known == sum(postings.document_frequency(term) for postings in opened)
        distinct = {term for rows in shards for row in rows for term in row}
        assert whole.whole == (len(distinct) <= limit)
        if whole.whole:
            assert whole.of("unheard") == 0


def test_the_commonest_terms_are_known_first(tmp_path: Path) -> None:
    write_postings(tmp_path / "postings", [["b", "a"], ["b", "c"], ["b", "c"], ["d"]])
    vocabulary = commonest(Postings.open(tmp_path / "postings"), 2)
    assert dict(vocabulary.frequencies) == {"b": 3, "c": 2}
    assert vocabulary.of("a") is None


def test_of_many_whole_vocabularies_the_commonest_terms_are_kept() -> None:
    parts = [Vocabulary({"common": 5, f"rare{number}": 1}, whole=True) for number in range(20)]
    vocabulary = together(parts, 3)
    assert len(vocabulary.frequencies) == 3
    assert vocabulary.of("common") == 100
    assert vocabulary.of("unheard") is None


def test_nothing_is_known_of_nothing() -> None:
    assert NOTHING_KNOWN.of("a") is None
