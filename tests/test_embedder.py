from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from ray_jobs.errors import ModelError, UsageError
from ray_jobs.models.embedder import Embedder, EmbedderConfig, check_compatible
from ray_jobs.models.engine import TokenBatch
from ray_jobs.models.fake_engine import FAKE_SPEC, FakeEngine
from ray_jobs.models.loading import Encoder, load_encoder

CONFIG = EmbedderConfig(engine="fake")
FAKE = Embedder.load(CONFIG)


def encoder(**changes: object) -> Encoder:
    return dataclasses.replace(load_encoder(CONFIG), **changes)  # type: ignore[arg-type]  # any field of Encoder


class Broken(FakeEngine):
    def __init__(self, break_it: str) -> None:
        self.break_it = break_it

    def forward(self, batch: TokenBatch) -> NDArray[np.float32]:
        vectors = super().forward(batch)
        if self.break_it == "row":
            return vectors[:-1]
        if self.break_it == "column":
            return vectors[:, :-1]
        return vectors * np.float32("nan")


@given(st.lists(st.text(max_size=60), max_size=40), st.sampled_from([256, 300, 1000]))
def test_row_i_belongs_to_text_i_however_texts_are_batched(texts: list[str], budget: int) -> None:
    together = Embedder.load(EmbedderConfig(engine="fake", batch_tokens=budget)).encode_documents(texts)
    assert together.shape == (len(texts), FAKE.dimension)
    assert together.dtype == np.float32
    for vector, text in zip(together, texts, strict=True):
        np.testing.assert_allclose(vector, FAKE.encode_documents([text])[0], atol=1e-5)


def test_more_texts_than_one_window_keep_their_order() -> None:
    texts = [f"passage number {i} " + "word " * (i % 97) for i in range(2000)]
    vectors = FAKE.encode_documents(texts)
    np.testing.assert_allclose(vectors[1234], FAKE.encode_documents([texts[1234]])[0], atol=1e-5)
    np.testing.assert_allclose(vectors[7], FAKE.encode_documents([texts[7]])[0], atol=1e-5)


def test_no_text_gives_no_row() -> None:
    assert FAKE.encode_documents([]).shape == (0, FAKE.dimension)


def test_forwards_run_side_by_side_when_the_engine_can() -> None:
    class Meeting(FakeEngine):
        parallel = 2
        barrier = threading.Barrier(2, timeout=30)

        def forward(self, batch: TokenBatch) -> NDArray[np.float32]:
            self.barrier.wait()
            return super().forward(batch)

    embedder = Embedder(encoder(engine=Meeting(), batch_tokens=256), CONFIG)
    assert embedder.encode_documents(["long text " * 200] * 4).shape == (4, 64)


def test_several_threads_may_share_an_embedder() -> None:
    texts = [f"text {i}" for i in range(40)]
    expected = FAKE.encode_queries(texts)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: FAKE.encode_queries(texts), range(8)):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("break_it", ["row", "column"])
def test_an_output_of_the_wrong_shape_is_caught(break_it: str) -> None:
    with pytest.raises(ModelError, match="shape"):
        Embedder(encoder(engine=Broken(break_it)), CONFIG).encode_documents(["a", "b"])


def test_values_that_are_not_finite_are_caught() -> None:
    with pytest.raises(ModelError, match="precision=float32"):
        Embedder(encoder(engine=Broken("values")), CONFIG).encode_documents(["a", "b"])


def test_a_dot_product_model_is_not_normalised() -> None:
    class Long(FakeEngine):
        def forward(self, batch: TokenBatch) -> NDArray[np.float32]:
            return super().forward(batch) * np.float32(3)

    spec = dataclasses.replace(FAKE_SPEC, similarity="dot", normalized=False)
    embedder = Embedder(encoder(engine=Long(), spec=spec), CONFIG)
    assert np.isclose(np.linalg.norm(embedder.encode_documents(["a b"])), 3.0)
    assert not embedder.identity.normalized


def test_prompts_go_before_queries_and_documents() -> None:
    spec = dataclasses.replace(FAKE_SPEC, query_prompt="ask ", document_prompt="tell ")
    embedder = Embedder(encoder(spec=spec), CONFIG)
    np.testing.assert_array_equal(embedder.encode_queries(["ray"]), FAKE.encode_queries(["ask ray"]))
    np.testing.assert_array_equal(embedder.encode_documents(["ray"]), FAKE.encode_queries(["tell ray"]))


def test_the_chunker_is_told_of_the_document_prompt() -> None:
    spec = dataclasses.replace(FAKE_SPEC, document_prompt="passage: ")
    assert Embedder(encoder(spec=spec), CONFIG).tokenizer.special_tokens == FAKE.tokenizer.special_tokens + 2


def test_max_tokens_cuts_texts() -> None:
    short = Embedder.load(EmbedderConfig(engine="fake", max_tokens=8))
    assert short.max_tokens == 8
    np.testing.assert_array_equal(
        short.encode_documents(["a b c d e f g h i"]), short.encode_documents(["a b c d e f x y z"])
    )


def test_a_budget_below_one_text_is_refused() -> None:
    with pytest.raises(UsageError, match="batch_tokens=100"):
        Embedder.load(EmbedderConfig(engine="fake", batch_tokens=100))


def test_a_model_with_a_long_window_needs_no_budget_of_the_user() -> None:
    spec = dataclasses.replace(FAKE_SPEC, max_tokens=100_000)
    assert Embedder(encoder(spec=spec), CONFIG).encode_documents(["word " * 9000]).shape == (1, 64)


def test_max_tokens_above_the_positions_of_the_model_is_refused() -> None:
    with pytest.raises(UsageError, match="max_tokens=600"):
        Embedder(
            encoder(spec=dataclasses.replace(FAKE_SPEC, position_limit=512)),
            EmbedderConfig(engine="fake", max_tokens=600),
        )


@pytest.mark.parametrize(
    "setting",
    [
        {"engine": "openvino", "device": "cuda"},
        {"engine": "fake", "precision": "bfloat16"},
        {"engine": "tensorflow"},
        {"threads": 0},
        {"modle": "x"},
        {"model": ""},
    ],
)
def test_a_configuration_that_cannot_be_is_refused(setting: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        EmbedderConfig.model_validate(setting)


def test_identity_survives_json() -> None:
    identity = FAKE.identity
    assert type(identity).model_validate_json(identity.model_dump_json()) == identity


@pytest.mark.parametrize("change", [{"engine": "torch"}, {"precision": "bfloat16"}, {"max_tokens": 9}, {"model": "b"}])
def test_one_revision_is_compatible_whatever_runs_it(change: dict[str, object]) -> None:
    check_compatible(FAKE.identity, FAKE.identity.model_copy(update=change))


@pytest.mark.parametrize("change", [{"revision": "x"}, {"dimension": 9}, {"normalized": False}, {"similarity": "dot"}])
def test_another_model_than_that_of_the_index_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(change))):
        check_compatible(FAKE.identity, FAKE.identity.model_copy(update=change))
