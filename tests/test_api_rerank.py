"""Reranking over HTTP, in Cohere's shape."""

from __future__ import annotations

from typing import Any

import pytest
from fake_backend import FakeBackend
from live_api import OPEN, LiveApi, live

from ray_jobs.errors import NotFoundError

pytest_plugins = ["api_fixtures"]

BODY = {"query": "which is long?", "documents": ["short", {"text": "the longest of all"}, "longer one"]}


def test_documents_come_back_by_their_place_best_first(api: LiveApi) -> None:
    reply = api.post("/v1/rerank", BODY).json()
    assert [(result["index"], result["relevance_score"]) for result in reply["results"]] == [
        (1, 1.8),
        (2, 1.0),
        (0, 0.5),
    ]
    assert reply["model"] == "fake-reranker"
    assert reply["meta"] == {"tokens": {"input_tokens": 27}}
    assert reply["timings"].keys() == {"rerank", "total"}
    assert reply["id"]


def test_only_the_best_are_returned_and_with_their_text_when_that_is_asked_for(api: LiveApi) -> None:
    reply = api.post("/v1/rerank", {**BODY, "top_n": 1, "return_documents": True, "model": "fake-reranker"}).json()
    assert reply["results"] == [{"index": 1, "relevance_score": 1.8, "document": {"text": "the longest of all"}}]


def test_equal_scores_stay_in_the_order_of_the_request() -> None:
    with live(FakeBackend(rerank_scores=lambda call: [1.0] * len(call.texts))) as api:
        assert [result["index"] for result in api.post("/v1/rerank", BODY).json()["results"]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"documents": []}, "documents"),
        ({"documents": "text"}, "documents"),
        ({"documents": [3]}, "documents.0"),
        ({"documents": [{"title": "x"}]}, "documents.0.text"),
        ({"documents": ["x"] * 1_001}, "documents"),
        ({"top_n": 0}, "top_n"),
        ({"query": " "}, "query"),
        ({"query": "x" * 8_001}, "query"),
        ({"max_chunks_per_doc": 3}, "max_chunks_per_doc"),
    ],
)
def test_a_wrong_field_is_named(api: LiveApi, fields: dict[str, Any], param: str) -> None:
    assert api.error("/v1/rerank", {**BODY, **fields}, 400)["param"] == param
    assert api.backend.reranks == []


def test_another_model_is_404(api: LiveApi) -> None:
    assert api.error("/v1/rerank", {**BODY, "model": "base"}, 404)["param"] == "model"


def test_without_a_reranker_the_call_is_404() -> None:
    with live(FakeBackend(reranker=None, errors={"rerank": NotFoundError("none is deployed")})) as api:
        api.error("/v1/rerank", BODY, 404)


def test_too_few_scores_are_an_error_and_not_an_order() -> None:
    with live(FakeBackend(rerank_scores=lambda call: [1.0])) as api:
        assert "expected 3 scores" in api.error("/v1/rerank", BODY, 503)["message"]


def test_a_slow_reranker_is_408() -> None:
    with live(FakeBackend(delays={"rerank": 30}), OPEN) as api:
        assert "documents were scored" in api.error("/v1/rerank", BODY, 408, x_request_timeout="0.3")["message"]
