"""Batching and checks of the reranker on its fake, and the fake itself."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from ray_jobs.errors import ModelError, UsageError
from ray_jobs.models.fake_pairs import FakePairEngine, fake_pair_model
from ray_jobs.models.pairs import PairBatch
from ray_jobs.models.reranker import Reranker, RerankerConfig

FAKE_CONFIG = RerankerConfig(model="any", engine="fake")
FAKE = Reranker.load(FAKE_CONFIG)
WORD = st.sampled_from(["cat", "dog", "fox", "bee", "owl", "猫"])
TEXT = st.lists(WORD, max_size=40).map(" ".join)


class Broken(FakePairEngine):
    def __init__(self, break_it: str) -> None:
        self.break_it = break_it

    def forward(self, batch: PairBatch) -> NDArray[np.float32]:
        scores = super().forward(batch)
        return scores[:-1] if self.break_it == "row" else scores * np.float32(self.break_it)


@pytest.mark.parametrize(("break_it", "message"), [("row", "shape"), ("nan", "NaN"), ("inf", "NaN or infinite")])
def test_an_output_that_is_no_list_of_scores_is_caught(break_it: str, message: str) -> None:
    broken = Reranker(dataclasses.replace(fake_pair_model(), engine=Broken(break_it)), FAKE_CONFIG)
    with pytest.raises(ModelError, match=message):
        broken.scores("cat", ["cat", "cat dog"])


@given(st.lists(st.tuples(st.lists(WORD, min_size=1, max_size=5).map(" ".join), TEXT), max_size=30), st.integers(0, 2))
def test_score_i_belongs_to_pair_i_however_pairs_are_batched(pairs: list[tuple[str, str]], size: int) -> None:
    together = Reranker.load(FAKE_CONFIG.model_copy(update={"batch_tokens": [256, 300, 4096][size]}))
    scored = together.score_pairs(pairs)
    assert scored.scores.shape == scored.tokens.shape == (len(pairs),)
    for (query, text), score in zip(pairs, scored.scores, strict=True):
        assert score == FAKE.scores(query, [text])[0]


def test_the_fake_scores_the_share_of_the_querys_words() -> None:
    texts = ["Cat and dog", "a cat", "nothing", "dog dog cat"]
    np.testing.assert_array_equal(FAKE.scores("cat dog", texts), np.array([1, 0.5, 0, 1], np.float32))


def test_the_fake_cuts_texts_and_refuses_long_queries() -> None:
    short = Reranker.load(RerankerConfig(model="any", engine="fake", max_tokens=8))
    assert short.scores("cat", ["a b cat", "a b c cat"]).tolist() == [1, 0]
    with pytest.raises(UsageError, match="shorten the query"):
        short.scores("a b c d e", ["cat"])


def test_the_fake_needs_no_torch() -> None:
    program = (
        "import sys; from ray_jobs.models.reranker import Reranker, RerankerConfig\n"
        "assert Reranker.load(RerankerConfig(model='x', engine='fake')).scores('cat', ['cat']).tolist() == [1]\n"
        "assert not {'torch', 'transformers', 'sentence_transformers', 'peft'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.parametrize(
    "setting",
    [
        {"engine": "openvino"},
        {"engine": "fake", "precision": "bfloat16"},
        {"engine": "fake", "device": "cuda"},
        {"model": ""},
        {"max_tokens": 7},
        {"modle": "x"},
    ],
)
def test_a_configuration_that_cannot_be_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RerankerConfig.model_validate({"model": "any", **setting})
