from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.errors import UsageError
from ray_jobs.index.analysis import MAX_TERM_LENGTH, Analyzer


def terms(text: str, language: str = "english") -> list[str]:
    return Analyzer(language).terms(text)


def test_inflected_words_and_case_compare_equal() -> None:
    assert terms("Indexes INDEXING indexed") == ["index"] * 3


def test_stop_words_and_possessives_are_left_out() -> None:
    assert terms("the shard's rows and it isn't") == ["shard", "row", "isn"]


def test_accents_do_not_matter_in_english() -> None:
    assert terms("Café naïve") == terms("cafe naive")


def test_accents_matter_in_other_languages() -> None:
    assert terms("thé", "none") != terms("the", "none")


@pytest.mark.parametrize(
    ("identifier", "query"),
    [
        ("map_batches", "batches"),
        ("map_batches", "map_batches"),
        ("ray.data.Dataset.map_batches(fn)", "map_batches"),
        ("ray.data.Dataset", "ray.data.Dataset"),
        ("ray.data.Dataset", "dataset"),
        ("RayCluster", "raycluster"),
        ("RayCluster", "cluster"),
        ("HTTPServer", "server"),
        ("__init__", "init"),
        ("2.60.0", "2.60.0"),
    ],
)
def test_an_identifier_is_found_whole_and_by_its_parts(identifier: str, query: str) -> None:
    assert set(terms(query)) <= set(terms(identifier))


def test_mixed_case_abbreviations_stay_whole() -> None:
    assert terms("mRNA BRCA1 GPUs") == ["mrna", "brca1", "gpus"]


def test_chinese_and_japanese_become_overlapping_pairs() -> None:
    assert terms("分片索引。カタカナ") == ["分片", "片索", "索引", "カタ", "タカ", "カナ"]


def test_korean_becomes_overlapping_pairs_within_words() -> None:
    assert terms("검색 엔진은") == ["검색", "엔진", "진은"]


def test_a_single_han_character_between_others_is_its_own_term() -> None:
    assert terms("第3章 Python编程") == ["第", "3", "章", "python", "编程"]


def test_vowel_signs_do_not_break_words() -> None:
    assert terms("हिन्दी", "none") == [unicodedata.normalize("NFKC", "हिन्दी")]


def test_full_width_and_half_width_forms_compare_equal() -> None:
    assert terms("ＲＡＹ ｶﾅ") == terms("ray カナ")


def test_very_long_words_are_cut() -> None:
    assert terms("a" * 5000 + " end", "none") == ["a" * MAX_TERM_LENGTH, "end"]


def test_an_unknown_language_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"language = 'klingon': expected one of none, .*english"):
        Analyzer("klingon")


@given(st.text())
def test_terms_are_never_empty_and_never_change_with_what_was_analysed_before(text: str) -> None:
    used = Analyzer()
    first = used.terms(text)
    used.terms(text.upper())
    assert all(first)
    assert used.terms(text) == first == terms(text)


@given(st.text())
def test_canonically_equal_texts_have_equal_terms(text: str) -> None:
    assert terms(unicodedata.normalize("NFD", text)) == terms(unicodedata.normalize("NFC", text))
