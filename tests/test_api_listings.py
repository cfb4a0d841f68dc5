"""What is served, and how it is."""

from __future__ import annotations

import openai
import pytest
from fake_backend import PARTIAL, FakeBackend, describe_index
from live_api import CHAT, OPEN, LiveApi, live
from waiting import wait_for

pytest_plugins = ["api_fixtures"]


def test_openais_client_lists_generators_embedder_and_reranker(api: LiveApi) -> None:
    models = api.openai().models.list().data
    kinds = {model.id: model.to_dict()["kind"] for model in models}
    assert kinds == {
        "base": "generator",
        "base:polite": "generator",
        "fake-embedder": "embedder",
        "fake-reranker": "reranker",
    }
    assert all(model.created > 0 and model.owned_by == "tandem" for model in models)


def test_openais_client_finds_a_model_by_name() -> None:
    with live(FakeBackend(generators=("org/base:polite",))) as api:
        assert api.openai().models.retrieve("org/base:polite").id == "org/base:polite"
        with pytest.raises(openai.NotFoundError):
            api.openai().models.retrieve("org")


def test_an_index_is_listed_with_the_fields_that_a_filter_may_ask_about(api: LiveApi) -> None:
    reply = api.http.get("/v1/indexes").json()
    assert reply["object"] == "list"
    assert reply["data"][0] == {
        "id": "docs",
        "object": "index",
        "snapshot": 7,
        "documents": 1_000,
        "chunks": 5_000,
        "embedder": "fake-embedder",
        "metadata": {"lang": "string"},
        "default": True,
    }
    assert [index["default"] for index in reply["data"]] == [True, False]


def test_the_status_has_deployments_and_what_is_missing() -> None:
    with live(FakeBackend(indexes=(describe_index("docs", PARTIAL),))) as api:
        status = api.http.get("/v1/status").json()
        assert status["deployments"] == [{"name": "Retriever", "status": "HEALTHY", "replicas": 1, "wanted": 1}]
        (index,) = status["indexes"]
        assert (index["id"], index["snapshot"], index["loading"]) == ("docs", 7, None)
        assert index["coverage"]["missing"] == [2]


def test_the_process_lives_without_a_key_even_if_nothing_answers() -> None:
    config = OPEN.model_copy(update={"open": False})
    with live(FakeBackend(delays={"describe": 60}), config) as api:
        assert api.http.get("/livez").json() == {"status": "ok"}


def test_the_server_is_ready_when_every_index_is_whole(api: LiveApi) -> None:
    response = api.http.get("/readyz")
    assert response.status_code == 200
    assert response.json() == {"status": "ok", "indexes": 2, "indexes_ready": 2, "partitions_missing": 0}


@pytest.mark.parametrize(
    ("indexes", "missing"),
    [
        ((describe_index("docs"), describe_index("secret", PARTIAL)), 1),
        ((describe_index("docs"), describe_index("secret", snapshot=None)), 0),
        ((), 0),
    ],
    ids=["a partition is missing", "nothing is loaded", "the retriever does not answer"],
)
def test_the_server_is_not_ready_and_tells_how_much_is_missing_but_no_names(
    indexes: tuple[object, ...], missing: int
) -> None:
    with live(FakeBackend(indexes=indexes), OPEN.model_copy(update={"open": False})) as api:  # type: ignore[arg-type]
        response = api.http.get("/readyz")
        assert response.status_code == 503
        assert response.json()["partitions_missing"] == missing
        assert response.json()["indexes_ready"] < max(1, len(indexes))
        assert "secret" not in response.text


def test_what_does_not_answer_for_a_while_keeps_its_names() -> None:
    with live() as api:
        assert api.post("/v1/chat/completions", CHAT).status_code == 200
        api.backend.generators, api.backend.indexes, api.backend.reranker = (), (), None
        assert api.http.get("/readyz").status_code == 503
        assert api.post("/v1/chat/completions", CHAT).status_code == 200
        assert len(api.http.get("/v1/models").json()["data"]) == 4


def test_no_request_waits_for_a_description_when_there_is_an_old_one() -> None:
    with live() as api:
        assert api.post("/v1/search", {"query": "x"}).status_code == 200
        api.backend.delays["describe"] = 60
        assert api.post("/v1/search", {"query": "x"}, x_request_timeout="5").status_code == 200
        assert api.http.get("/v1/status", headers={"x-request-timeout": "0.2"}).status_code == 408


def test_a_model_that_has_never_answered_is_503_and_not_404() -> None:
    with live(FakeBackend(generators=())) as api:
        api.error("/v1/chat/completions", CHAT, 503)


def test_before_a_search_is_refused_for_want_of_an_index_the_server_looks_again() -> None:
    with live(FakeBackend(indexes=())) as api:
        api.error("/v1/search", {"query": "x"}, 503)
        api.backend.indexes = (describe_index("docs"),)
        assert api.post("/v1/search", {"query": "x"}).status_code == 200


def test_a_description_is_asked_for_again_once_it_is_old() -> None:
    with live() as api:
        assert api.post("/v1/search", {"query": "x"}).json()["index"] == "docs"
        api.backend.indexes = (describe_index("newer"),)
        wait_for(lambda: api.post("/v1/search", {"query": "x"}).json()["index"] == "newer", seconds=5)
