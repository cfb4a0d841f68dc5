"""Keys, and what the tenant behind a key may see and do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from fake_backend import FakeBackend
from fastapi.testclient import TestClient
from live_api import CHAT, LiveApi, live

from serve.api.app import make_app
from serve.api.config import ApiConfig
from serve.api.keys import new_key

pytest_plugins = ["api_fixtures"]

ALL_KEY, ALL_HASH = new_key()
ONE_KEY, ONE_HASH = new_key()
NONE_KEY, NONE_HASH = new_key()
SLOW_KEY, SLOW_HASH = new_key()
CONFIG = ApiConfig.model_validate(
    {
        "tenants": {
            "all": {"keys": [ALL_HASH]},
            "one": {"keys": [new_key()[1], ONE_HASH], "indexes": ["other"], "where": "lang = 'en' or lang = 'de'"},
            "none": {"keys": [NONE_HASH], "indexes": ["gone"]},
            "slow": {"keys": [SLOW_HASH], "requests_per_minute": 0.5, "burst": 3},
        },
        "texts_per_request": 2,
        "description_s": 0,
    }
)
EVERY_CALL: list[tuple[str, str, Any]] = [
    ("POST", "/v1/chat/completions", CHAT),
    ("POST", "/v1/search", {"query": "x"}),
    ("POST", "/v1/rerank", {"query": "x", "documents": ["y"]}),
    ("POST", "/v1/embeddings", {"input": "x"}),
    ("GET", "/v1/models", None),
    ("GET", "/v1/models/base", None),
    ("GET", "/v1/indexes", None),
    ("GET", "/v1/status", None),
]


@pytest.fixture(scope="module")
def api_server() -> Iterator[LiveApi]:
    with live(FakeBackend(), CONFIG) as api:
        yield api


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize(("method", "path", "body"), EVERY_CALL)
def test_no_call_is_answered_without_a_key(api: LiveApi, method: str, path: str, body: Any) -> None:
    response = api.http.request(method, path, json=body)
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert response.headers["x-should-retry"] == "false"
    assert response.headers["www-authenticate"] == "Bearer"
    assert api.http.request(method, path, json=body, headers=bearer(ALL_KEY)).status_code == 200


def test_the_calls_below_v1_are_all_of_them(api: LiveApi) -> None:
    described = {
        (method.upper(), path.replace("{model}", "base"))
        for path, operations in api.http.get("/openapi.json").json()["paths"].items()
        for method in operations
    }
    assert described == {(method, path) for method, path, _ in EVERY_CALL} | {("GET", "/livez"), ("GET", "/readyz")}


@pytest.mark.parametrize(
    "authorization",
    [
        b"Bearer nobodys",
        b"Bearer",
        b"Basic " + ALL_KEY.encode(),
        ALL_KEY.encode(),
        b"Bearer " + ALL_KEY.encode() + b"x",
        b"Bearer " + ALL_KEY.encode()[:-1],
        b"Bearer " + ALL_HASH.encode(),
        b"Bearer \xff\xfe",
        b"Bearer " + b"x" * 20_000,
    ],
    ids=[
        "another's key",
        "no key",
        "another scheme",
        "no scheme",
        "a longer key",
        "a shorter key",
        "the key's hash",
        "not text",
        "a very long key",
    ],
)
def test_what_is_nobodys_key_is_401(api: LiveApi, authorization: bytes) -> None:
    response = api.http.get("/v1/models", headers=[(b"authorization", authorization)])
    assert response.status_code == 401
    assert ALL_KEY not in response.text


def test_a_key_is_taken_whatever_the_case_of_bearer(api: LiveApi) -> None:
    assert api.http.get("/v1/models", headers={"authorization": f"bearer  {ALL_KEY}"}).status_code == 200


def test_openais_client_is_let_in_with_a_key_and_raises_without(api: LiveApi) -> None:
    assert api.openai(ONE_KEY).models.list().data
    with pytest.raises(openai.AuthenticationError):
        api.openai("tdm_wrong").models.list()


def test_a_body_without_a_key_is_not_even_read(api: LiveApi) -> None:
    response = api.http.post("/v1/search", content=b"{ no json", headers={"content-type": "application/json"})
    assert response.status_code == 401


def test_nothing_below_v1_tells_whether_it_exists_without_a_key(api: LiveApi) -> None:
    assert api.http.get("/v1/nothing").status_code == 401
    assert api.http.get("/v1/nothing", headers=bearer(ALL_KEY)).status_code == 404


def test_a_tenant_sees_only_its_indices(api: LiveApi) -> None:
    for path, listed in (("/v1/indexes", "data"), ("/v1/status", "indexes")):
        reply = api.http.get(path, headers=bearer(ONE_KEY))
        assert [index["id"] for index in reply.json()[listed]] == ["other"]
        assert "docs" not in reply.text
    assert api.http.get("/v1/indexes", headers=bearer(ONE_KEY)).json()["data"][0]["default"] is True


@pytest.mark.parametrize(("path", "body"), [("/v1/search", {"query": "x"}), ("/v1/chat/completions", CHAT)])
def test_anothers_index_does_not_exist(api: LiveApi, path: str, body: dict[str, Any]) -> None:
    hidden = api.error(path, {**body, "index": "docs"}, 404, **bearer(ONE_KEY))
    absent = api.error(path, {**body, "index": "nope"}, 404, **bearer(ONE_KEY))
    assert hidden["message"].replace("docs", "nope") == absent["message"]
    assert api.backend.searches == []


def test_anothers_index_is_not_reached_by_the_other_field_either(api: LiveApi) -> None:
    api.error("/v1/chat/completions", {**CHAT, "retrieval": {"index": "docs"}}, 404, **bearer(ONE_KEY))
    assert api.backend.searches == []


def test_a_tenants_default_is_the_first_index_that_it_may_see(api: LiveApi) -> None:
    assert api.post("/v1/search", {"query": "x"}, **bearer(ONE_KEY)).json()["index"] == "other"


def test_a_tenant_that_may_see_nothing_is_told_so(api: LiveApi) -> None:
    assert api.error("/v1/search", {"query": "x"}, 403, **bearer(NONE_KEY))["code"] == "forbidden"
    assert api.http.get("/v1/indexes", headers=bearer(NONE_KEY)).json()["data"] == []


@pytest.mark.parametrize(
    ("where", "applied"),
    [
        (None, "(lang = 'en') or (lang = 'de')"),
        ("year > 2020", "((lang = 'en') or (lang = 'de')) and (year > 2020)"),
        ("year > 2020 or exists doc_id", "((lang = 'en') or (lang = 'de')) and ((year > 2020) or (exists doc_id))"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/search", "/v1/chat/completions"])
def test_a_tenants_filter_holds_beside_the_callers(api: LiveApi, path: str, where: str | None, applied: str) -> None:
    body: dict[str, Any] = {"query": "x", "where": where}
    if path.endswith("completions"):
        body = {**CHAT, "retrieval": {"where": where}}
    assert api.post(path, body, **bearer(ONE_KEY)).status_code == 200
    assert api.backend.searches[0].config.where == applied


def test_a_tenant_with_a_filter_does_not_learn_how_much_there_is_beside_it(api: LiveApi) -> None:
    (index,) = api.http.get("/v1/indexes", headers=bearer(ONE_KEY)).json()["data"]
    assert (index["documents"], index["chunks"]) == (None, None)
    assert api.http.get("/v1/indexes", headers=bearer(ALL_KEY)).json()["data"][0]["documents"] == 1_000


@pytest.mark.parametrize("where", ["x = 1) or (exists doc_id", "x = 1 or exists doc_id)", "'", "x = '\\'"])
def test_a_tenants_filter_cannot_be_written_around(api: LiveApi, where: str) -> None:
    api.error("/v1/search", {"query": "x", "where": where}, 400, **bearer(ONE_KEY))
    assert api.backend.searches == []


def test_a_tenant_that_comes_too_often_is_told_when_to_come_again() -> None:
    with live(FakeBackend(), CONFIG) as api:
        for _ in range(3):
            assert api.http.get("/v1/models", headers=bearer(SLOW_KEY)).status_code == 200
        response = api.post("/v1/search", {"query": "x"}, **bearer(SLOW_KEY))
        assert response.status_code == 429
        assert 100 < int(response.headers["retry-after"]) <= 120
        assert "x-should-retry" not in response.headers
        assert api.backend.searches == []
        assert api.post("/v1/search", {"query": "x"}, **bearer(ALL_KEY)).status_code == 200


@pytest.mark.parametrize(
    ("path", "few", "many"),
    [
        ("/v1/embeddings", {"input": ["a", "b"]}, {"input": ["a", "b", "c", "d", "e"]}),
        ("/v1/rerank", {"query": "x", "documents": ["a", "b"]}, {"query": "x", "documents": list("abcde")}),
    ],
)
def test_a_batch_counts_by_its_texts(path: str, few: Any, many: Any) -> None:
    with live(FakeBackend(), CONFIG) as api:
        assert api.post(path, few, **bearer(SLOW_KEY)).status_code == 200
        api.error(path, many, 429, **bearer(SLOW_KEY))
        assert len(api.backend.embeds) + len(api.backend.reranks) == 1


def test_an_open_server_takes_every_key_and_none() -> None:
    with live(config=ApiConfig(open=True)) as api:
        assert api.http.get("/v1/models").status_code == 200
        assert api.http.get("/v1/models", headers=bearer("whatever")).status_code == 200


def test_a_server_without_tenants_lets_nobody_in() -> None:
    with live(config=ApiConfig()) as api:
        assert api.http.get("/v1/models", headers=bearer(ALL_KEY)).status_code == 401


def test_a_server_below_a_prefix_is_guarded_as_well() -> None:
    with TestClient(make_app(FakeBackend(), CONFIG), root_path="/tandem") as client:
        assert client.get("/tandem/v1/models").status_code == 401
        assert client.get("/tandem/v1/models", headers=bearer(ALL_KEY)).status_code == 200
        assert client.get("/tandem/livez").status_code == 200
