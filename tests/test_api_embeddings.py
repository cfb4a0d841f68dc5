"""Embeddings over HTTP, by OpenAI's own client where it has the call."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from fake_backend import FakeBackend
from live_api import LiveApi, live

pytest_plugins = ["api_fixtures"]


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_openais_client_gets_the_vectors_of_its_texts_in_order(api: LiveApi, encoding: Any) -> None:
    reply = api.openai().embeddings.create(model="fake-embedder", input=["a", "bbb"], encoding_format=encoding)
    vectors = [item.embedding for item in reply.data]
    if encoding == "base64":
        vectors = [np.frombuffer(base64.b64decode(str(vector)), "<f4").tolist() for vector in vectors]
    assert vectors == [[1.0, 1.125, 1.25, 1.375], [3.0, 3.125, 3.25, 3.375]]
    assert [item.index for item in reply.data] == [0, 1]
    assert reply.usage.prompt_tokens == reply.usage.total_tokens == 6


def test_openais_client_decodes_by_itself_what_it_asks_for_by_default(api: LiveApi) -> None:
    reply = api.openai().embeddings.create(model="fake-embedder", input="a")
    assert reply.data[0].embedding == [1.0, 1.125, 1.25, 1.375]


def test_a_single_text_has_a_list_of_one_and_no_model_need_be_named(api: LiveApi) -> None:
    reply = api.post("/v1/embeddings", {"input": "a", "dimensions": 4}).json()
    assert reply["object"] == "list"
    assert [item["object"] for item in reply["data"]] == ["embedding"]
    assert reply["model"] == "fake-embedder"


@pytest.mark.parametrize(("given", "kind"), [(None, "document"), ("document", "document"), ("query", "query")])
def test_texts_are_documents_unless_said_otherwise(api: LiveApi, given: str | None, kind: str) -> None:
    assert api.post("/v1/embeddings", {"input": ["a"], "input_type": given}).status_code == 200
    assert api.backend.embeds[0].kind == kind


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": [1, 2, 3]}, "input.0"),
        ({"input": [[1, 2]]}, "input.0"),
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": ["a", " "]}, "input.1"),
        ({"input": 3}, "input"),
        ({"input": ["a"] * 2_049}, "input"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"dimensions": 3}, "dimensions"),
        ({"input_type": "passage"}, "input_type"),
        ({"truncate": True}, "truncate"),
    ],
)
def test_a_wrong_field_is_named(api: LiveApi, fields: dict[str, Any], param: str) -> None:
    assert api.error("/v1/embeddings", {"input": "a", **fields}, 400)["param"] == param


def test_another_model_is_404(api: LiveApi) -> None:
    error = api.error("/v1/embeddings", {"input": "a", "model": "text-embedding-3-small"}, 404)
    assert error["param"] == "model"
    assert "fake-embedder" in error["message"]


def test_vectors_that_are_too_few_are_an_error() -> None:
    class Forgetful(FakeBackend):
        async def embed(self, call: Any) -> Any:
            reply = await super().embed(call)
            return type(reply)(reply.model, reply.vectors[:1], reply.tokens)

    with live(Forgetful()) as api:
        assert "expected 2 vectors" in api.error("/v1/embeddings", {"input": ["a", "b"]}, 503)["message"]
