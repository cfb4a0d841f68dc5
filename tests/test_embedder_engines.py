"""The engines against SentenceTransformer.encode, on the default model and on tiny ones of every make."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_models import DEFAULT_MODEL, TEXTS, tiny_model

from ray_jobs.models.embedder import Embedder, EmbedderConfig
from ray_jobs.models.resolve import resolve

ENGINES = ["torch", "openvino"]
MAKES: dict[str, dict[str, Any]] = {
    "mean": {"pooling": "mean"},
    "cls": {"pooling": "cls", "normalize": True},
    "max": {"pooling": "max"},
    "last token": {"pooling": "lasttoken"},
    "weighted mean": {"pooling": "weightedmean"},
    "two poolings": {"pooling": ("mean", "cls")},
    "dense": {"dense": 16, "normalize": True},
    "dot product": {"similarity_fn_name": "dot"},
    "short": {"max_seq_length": 16},
    "long": {"max_seq_length": 128},
    "truncated": {"truncate_dim": 8, "normalize": True},
    "prompts": {"prompts": {"query": "query: ", "document": "passage: "}},
    "default prompt": {"prompts": {"both": "represent: "}, "default_prompt_name": "both"},
    "positions from the padding index": {"architecture": "roberta"},
    "distilled": {"architecture": "distilbert"},
    "relative positions": {"architecture": "mpnet"},
}


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("converted")


@dataclass(frozen=True)
class Reference:
    """What sentence-transformers makes of TEXTS with a model."""

    path: Path
    documents: NDArray[np.float32]
    queries: NDArray[np.float32]


def reference(path: Path) -> Reference:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(path), device="cpu")
    documents: NDArray[np.float32] = model.encode_document(TEXTS)
    queries: NDArray[np.float32] = model.encode_query(TEXTS)
    return Reference(path, documents, queries)


@pytest.fixture(scope="session", params=MAKES, ids=str)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return reference(tiny_model(tmp_path_factory.mktemp("tiny"), **MAKES[request.param]))


@pytest.fixture(scope="session")
def default() -> Reference:
    return reference(resolve(DEFAULT_MODEL).path)


def embedder(path: Path | str, engine: str, precision: str, cache: Path, **settings: Any) -> Embedder:
    settings = {
        "model": str(path),
        "engine": engine,
        "precision": precision,
        "device": "cpu",
        "cache": cache,
        **settings,
    }
    return Embedder.load(EmbedderConfig.model_validate({"threads": 1, **settings}))


def least_cosine(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    assert found.shape == expected.shape
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return float(((found * expected).sum(axis=1) / lengths).min())


@pytest.mark.parametrize("engine", ENGINES)
def test_in_float32_an_engine_gives_the_vectors_of_sentence_transformers(
    tiny: Reference, engine: str, cache: Path
) -> None:
    model = embedder(tiny.path, engine, "float32", cache, batch_tokens=256)
    assert least_cosine(model.encode_documents(TEXTS), tiny.documents) >= 0.99999
    assert least_cosine(model.encode_queries(TEXTS), tiny.queries) >= 0.99999


def test_tiny_models_tell_texts_apart(tiny: Reference) -> None:
    assert least_cosine(tiny.documents[:1], tiny.documents[3:4]) < 0.99


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("precision", "cosine"), [("float32", 0.99999), ("bfloat16", 0.9995)])
def test_the_default_model_gives_the_vectors_of_sentence_transformers(
    default: Reference, engine: str, precision: str, cosine: float, cache: Path
) -> None:
    vectors = embedder(DEFAULT_MODEL, engine, precision, cache).encode_documents(TEXTS)
    assert least_cosine(vectors, default.documents) >= cosine
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_the_default_model_takes_256_tokens_though_its_tokeniser_file_cuts_at_128(cache: Path) -> None:
    model = embedder(DEFAULT_MODEL, "openvino", "float32", cache)
    words = ["retrieval"] * 200
    first, second = model.encode_documents([" ".join(words), " ".join([*words[:180], "volcano"])])
    assert model.max_tokens == 256
    assert first @ second < 0.999


def test_a_dot_product_model_keeps_its_lengths(tmp_path: Path, cache: Path) -> None:
    path = tiny_model(tmp_path, similarity_fn_name="dot")
    for engine in ENGINES:
        found = embedder(path, engine, "float32", cache).encode_documents(TEXTS)
        np.testing.assert_allclose(found, reference(path).documents, rtol=1e-3, atol=1e-4)


def test_a_prompt_left_out_of_pooling_is_left_out(tmp_path: Path, cache: Path) -> None:
    path = tiny_model(tmp_path, include_prompt=False, prompts={"query": "find what answers this: ", "document": ""})
    found = embedder(path, "torch", "float32", cache).encode_queries(TEXTS)
    assert least_cosine(found, reference(path).queries) >= 0.99999


def test_a_text_has_the_same_vector_alone_and_among_others(cache: Path) -> None:
    model = embedder(DEFAULT_MODEL, "openvino", "float32", cache)
    alone = np.concatenate([model.encode_documents([text]) for text in TEXTS])
    assert least_cosine(model.encode_documents(TEXTS), alone) >= 0.99999


def test_a_converted_model_starts_without_torch(cache: Path) -> None:
    embedder(DEFAULT_MODEL, "openvino", "float32", cache)
    program = (
        "import sys; from pathlib import Path; from ray_jobs.models.embedder import Embedder, EmbedderConfig\n"
        f"c = EmbedderConfig(engine='openvino', precision='float32', device='cpu', cache=Path({str(cache)!r}))\n"
        "assert Embedder.load(c).encode_queries(['x']).shape == (1, 384)\n"
        "assert not {'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
