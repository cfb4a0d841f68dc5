"""Search over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from fake_backend import PARTIAL, FakeBackend, describe_index, make_hits
from live_api import OPEN, LiveApi, live

from ray_jobs.errors import ModelError, NotFoundError, StorageError, UsageError
from ray_jobs.index.reranking import passage
from serve.errors import BusyError, UnavailableError

pytest_plugins = ["api_fixtures"]


def search(api: LiveApi, **fields: Any) -> dict[str, Any]:
    response = api.post("/v1/search", {"query": "manifest", **fields})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_a_hit_has_everything_that_the_index_knows_of_it(api: LiveApi) -> None:
    found = search(api, k=2)
    assert (found["object"], found["index"], found["snapshot"]) == ("search.results", "docs", 7)
    assert found["degraded"] == []
    assert found["hits"][1] == {
        "rank": 2,
        "doc_id": "d1",
        "chunk_id": "d1#0",
        "score": 0.5,
        "scores": {"dense": 0.5, "lexical": 2.0},
        "text": "A shard is a part of an index. <script>alert('é 字')</script>",
        "title": "Title 1",
        "heading": "Heading",
        "page": None,
        "source": "file-1.md",
        "start": 100,
        "end": 160,
        "metadata": {"lang": "en", "year": 2021},
    }


def test_ten_documents_are_searched_for_by_default(api: LiveApi) -> None:
    search(api)
    config = api.backend.searches[0].config
    assert (config.k, config.by, config.mode, config.where, config.nprobe) == (10, "document", "hybrid", None, None)


def test_the_request_is_handed_on(api: LiveApi) -> None:
    search(api, k=3, by="chunk", mode="dense", where="year >= 2020 and lang = 'en'", nprobe=4, index="other")
    (call,) = api.backend.searches
    assert (call.index, call.text) == ("other", "manifest")
    assert (call.config.k, call.config.by, call.config.mode, call.config.nprobe) == (3, "chunk", "dense", 4)
    assert call.config.where == "(year >= 2020) and (lang = 'en')"


def test_timings_have_the_stages_of_the_search_and_the_whole(api: LiveApi) -> None:
    timings = search(api)["timings"]
    assert timings["embed"] == 2.0
    assert timings.keys() == {"embed", "rows", "retrieve", "total"}


def test_the_reranker_sees_what_it_sees_on_the_command_line(api: LiveApi) -> None:
    search(api, rerank=True, k=4, by="document")
    (searched,), (reranked,) = api.backend.searches, api.backend.reranks
    assert (searched.config.by, searched.config.k) == ("chunk", 50)
    assert reranked.texts == tuple(passage(hit) for hit in make_hits(12))


def test_reranked_hits_are_ranked_anew_and_keep_the_scores_of_all_stages(api: LiveApi) -> None:
    found = search(api, rerank=True, k=4)
    scores = [hit["score"] for hit in found["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3, 4]
    assert found["hits"][0]["scores"] == {"dense": 0.5, "lexical": 2.0, "rerank": 8.3}
    # Equal scores stay in the order of retrieval.
    assert [hit["doc_id"] for hit in found["hits"]] == ["d0", "d3", "d6", "d9"]
    assert found["timings"]["rerank"] >= 0


@pytest.mark.parametrize(
    "backend",
    [
        FakeBackend(delays={"rerank": 30}),
        FakeBackend(errors={"rerank": UnavailableError("gone")}),
        FakeBackend(errors={"rerank": RuntimeError("a bug")}),
        FakeBackend(rerank_scores=lambda call: [1.0]),
        FakeBackend(rerank_scores=lambda call: [float("nan")] * len(call.texts)),
    ],
    ids=["slow", "gone", "broken", "too few scores", "no numbers"],
)
def test_hits_that_could_not_be_reranked_keep_the_order_of_retrieval_and_are_flagged(backend: FakeBackend) -> None:
    config = OPEN.model_copy(update={"rerank": OPEN.rerank.model_copy(update={"timeout_s": 0.2})})
    with live(backend, config) as api:
        found = search(api, rerank=True, k=3)
        assert found["degraded"] == ["rerank"]
        assert [hit["doc_id"] for hit in found["hits"]] == [hit.doc_id for hit in make_hits(3)]


def test_reranking_takes_at_most_half_of_what_is_left() -> None:
    with live(FakeBackend(delays={"rerank": 30})) as api:
        response = api.post("/v1/search", {"query": "x", "rerank": True}, x_request_timeout="1")
        assert response.json()["degraded"] == ["rerank"]
        assert api.backend.reranks[0].budget_s <= 0.5


def test_reranking_without_a_reranker_is_a_wrong_request() -> None:
    backend = FakeBackend(reranker=None, errors={"rerank": NotFoundError("no reranker is deployed")})
    with live(backend) as api:
        assert api.error("/v1/search", {"query": "x", "rerank": True}, 400)["param"] == "rerank"


@pytest.mark.parametrize("reranker", ["fake-reranker", None])
def test_reranking_by_default_is_done_where_there_is_a_reranker(reranker: str | None) -> None:
    config = OPEN.model_copy(update={"search": OPEN.search.model_copy(update={"rerank": True})})
    with live(FakeBackend(reranker=reranker), config) as api:
        assert search(api)["degraded"] == []
        assert len(api.backend.reranks) == (0 if reranker is None else 1)
        search(api, rerank=False)
        assert len(api.backend.reranks) == (0 if reranker is None else 1)


def test_a_missing_partition_is_flagged_in_body_and_header() -> None:
    with live(FakeBackend(coverage=PARTIAL)) as api:
        response = api.post("/v1/search", {"query": "x"})
        assert response.headers["x-tandem-coverage"] == "0.75"
        assert response.json()["coverage"]["missing"] == [2]
        assert response.json()["degraded"] == ["partition"]


def test_a_whole_index_has_no_header_of_coverage(api: LiveApi) -> None:
    assert "x-tandem-coverage" not in api.post("/v1/search", {"query": "x"}).headers


@pytest.mark.parametrize(("asked", "served"), [({}, 0.8), ({"min_coverage": 0.8}, 0.0)])
def test_too_little_coverage_is_503(asked: dict[str, float], served: float) -> None:
    with live(FakeBackend(coverage=PARTIAL), OPEN.model_copy(update={"min_coverage": served})) as api:
        assert "min_coverage=0.8" in api.error("/v1/search", {"query": "x", **asked}, 503)["message"]
        assert search(api, min_coverage=0.75)["hits"]


def test_a_filter_that_cannot_be_read_shows_the_place_on_one_line(api: LiveApi) -> None:
    error = api.error("/v1/search", {"query": "x", "where": "名 = 'a' and\n year >= and"}, 400)
    assert error["param"] == "where"
    assert error["message"].startswith("filter, character 22: expected ")
    assert error["message"].endswith("at the ^ in: 名 = 'a' and  year >= ^and")
    assert api.backend.searches == []


def test_a_filter_that_does_not_fit_the_index_is_a_wrong_field(api: LiveApi) -> None:
    api.backend.errors["search"] = UsageError("filter: no field 'colour'; this index has lang")
    error = api.error("/v1/search", {"query": "x", "where": "colour = 'red'"}, 400)
    assert (error["param"], "colour" in error["message"]) == ("where", True)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"query": ""}, "query"),
        ({"query": " \n\t"}, "query"),
        ({"query": None}, "query"),
        ({"query": ["x"]}, "query"),
        ({"query": "x" * 8_001}, "query"),
        ({"k": 0}, "k"),
        ({"k": "3"}, "k"),
        ({"k": 2.5}, "k"),
        ({"k": True}, "k"),
        ({"k": 1_001}, "k"),
        ({"k": 51, "rerank": True}, "k"),
        ({"mode": "fuzzy"}, "mode"),
        ({"by": "page"}, "by"),
        ({"where": 3}, "where"),
        ({"where": "x" * 10_001}, "where"),
        ({"where": ""}, "where"),
        ({"rerank": "yes"}, "rerank"),
        ({"min_coverage": 1.5}, "min_coverage"),
        ({"nprobe": 0}, "nprobe"),
        ({"limit": 3}, "limit"),
        ({"(text)": 3}, "(text)"),
        ({"x" * 10_000: 3}, "x" * 200),
    ],
)
def test_a_wrong_field_is_named(api: LiveApi, fields: dict[str, Any], param: str) -> None:
    error = api.error("/v1/search", {"query": "x", **fields}, 400)
    assert error["param"] == param
    assert len(error["message"]) < 300
    assert api.backend.searches == []


def test_an_index_that_appears_is_found_at_once_and_an_unknown_one_is_404() -> None:
    config = OPEN.model_copy(update={"description_s": 3_600})
    with live(config=config) as api:
        search(api)
        assert api.error("/v1/search", {"query": "x", "index": "new"}, 404)["param"] == "index"
        api.backend.indexes += (describe_index("new"),)
        assert search(api, index="new")["index"] == "new"


@pytest.mark.parametrize(
    ("error", "status", "code", "repeat"),
    [
        (BusyError("full", retry_after_s=2), 429, "rate_limit_exceeded", None),
        (UnavailableError("gone"), 503, "unavailable", None),
        (StorageError("no answer from the store"), 503, "unavailable", None),
        (ModelError("no vectors"), 503, "unavailable", "false"),
        (NotFoundError("index=docs: not served here; expected one of secret"), 404, "not_found", "false"),
    ],
)
def test_an_error_of_the_backend_keeps_its_meaning(
    api: LiveApi, error: Exception, status: int, code: str, repeat: str | None
) -> None:
    api.backend.errors["search"] = error
    response = api.post("/v1/search", {"query": "x"})
    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    assert response.headers.get("x-should-retry") == repeat
    assert "secret" not in response.text


def test_a_server_that_knows_no_index_yet_says_to_come_again() -> None:
    with live(FakeBackend(indexes=())) as api:
        api.error("/v1/search", {"query": "x"}, 503)
