from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.models.resolve import resolve
from ray_jobs.models.tokenizer import FastTokenizer

TOKENIZER = FastTokenizer(
    (resolve("sentence-transformers/all-MiniLM-L6-v2").path / "tokenizer.json").read_text(encoding="utf-8")
)
ANY_TEXT = st.text(st.characters(), max_size=200)  # lone surrogates included


@given(ANY_TEXT)
def test_offsets_are_sorted_code_point_spans_of_the_text(text: str) -> None:
    spans = TOKENIZER.offsets([text])[0]
    assert spans == sorted(spans)
    assert all(0 <= start <= end <= len(text) for start, end in spans)


def test_offsets_count_code_points_not_bytes() -> None:
    assert TOKENIZER.offsets(["é 日 😀 ray"])[0][-1] == (6, 9)


@given(ANY_TEXT)
def test_ids_have_as_many_tokens_as_offsets_and_special_tokens(text: str) -> None:
    assert len(TOKENIZER.ids([text], 10_000)[0]) == len(TOKENIZER.offsets([text])[0]) + TOKENIZER.special_tokens


@pytest.mark.parametrize("max_tokens", [8, 256, 300])
def test_ids_are_cut_at_the_length_asked_for_and_keep_the_last_special_token(max_tokens: int) -> None:
    ids = TOKENIZER.ids(["retrieval " * 999], max_tokens)[0]
    assert len(ids) == max_tokens
    assert ids[-1] == TOKENIZER.ids([""], 256)[0][-1]


def test_offsets_are_never_cut() -> None:
    assert len(TOKENIZER.offsets(["retrieval " * 999])[0]) == 999


def test_a_prefix_counts_the_first_special_token_and_the_prompt() -> None:
    assert TOKENIZER.prefix("query: ") == 3
