from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.models.embedder import Embedder, EmbedderConfig
from ray_jobs.models.fake_engine import FakeTokenizer

FAKE = Embedder.load(EmbedderConfig(engine="fake"))


def test_texts_that_share_words_are_closer_than_texts_that_share_none() -> None:
    near, far, query = FAKE.encode_documents(["ray streams blocks", "a pot of green tea", "how ray streams"])
    assert query @ near > query @ far + 0.3


def test_vectors_are_the_same_everywhere() -> None:
    vector = FAKE.encode_documents(["tandem"])[0]
    np.testing.assert_allclose(vector[:3], [0.18426807, -0.11680812, 0.11730067], atol=1e-6)


@given(st.text(max_size=80))
def test_any_text_has_a_unit_vector(text: str) -> None:
    assert np.isclose(np.linalg.norm(FAKE.encode_documents([text])), 1.0, atol=1e-5)


@given(st.text(max_size=80))
def test_offsets_cut_tokens_without_overlap_and_leave_only_what_is_no_token(text: str) -> None:
    spans = FakeTokenizer().offsets([text])[0]
    assert all(start < end for start, end in spans)
    assert all(left[1] <= right[0] for left, right in pairwise(spans))
    assert len(FakeTokenizer().ids([text], 10_000)[0]) == len(spans) + 2


def test_han_and_kana_are_tokens_one_by_one() -> None:
    assert FakeTokenizer().offsets(["ray 日本"])[0] == [(0, 3), (4, 5), (5, 6)]
