"""Requests that are no requests: malformed, oversized, abusive; and what becomes of defects."""

from __future__ import annotations

import json
import logging
from typing import Any

import openai
import pytest
from fake_backend import FakeBackend
from hypothesis import given, settings
from hypothesis import strategies as st
from live_api import CHAT, OPEN, LiveApi, live
from waiting import wait_for

pytest_plugins = ["api_fixtures"]

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "not JSON"),
        (b'{"query": "x",}', "not JSON"),
        (b'{"query": "x"} {}', "not JSON"),
        (b"", "missing"),
        (b"[]", "expected a JSON object"),
        (b'"text"', "expected a JSON object"),
        (b"null", "expected a JSON object"),
        (b'{"query": "\xff"}', "UTF-8"),
        ('{"query": "x"}'.encode("utf-16"), "UTF-8"),
        ('{"query": "x"}'.encode("utf-16-le"), "UTF-8"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"query": "x", "k": 1' + b"0" * 5_000 + b"}", "too many digits"),
        (b'{"query": "\\ud800"}', "surrogates"),
        (b'{"query": "x", "\\ud800": 1}', "surrogates"),
    ],
)
def test_a_body_that_is_no_json_object_is_400(api: LiveApi, content: bytes, said: str) -> None:
    response = api.http.post("/v1/search", content=content, headers=JSON)
    assert response.status_code == 400
    assert said in response.json()["error"]["message"]
    assert response.headers["x-should-retry"] == "false"


def test_numbers_beyond_numbers_are_no_values(api: LiveApi) -> None:
    for value in (b"NaN", b"Infinity", b"-Infinity", b"1e999"):
        content = b'{"query": "x", "min_coverage": %s}' % value
        response = api.http.post("/v1/search", content=content, headers=JSON)
        assert (response.status_code, response.json()["error"]["param"]) == (400, "min_coverage")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "nonsense", ""])
def test_a_body_that_is_not_called_json_is_400_and_says_how_to_call_it(api: LiveApi, kind: str) -> None:
    response = api.http.post("/v1/search", content=b'{"query": "x"}', headers={"content-type": kind})
    assert response.status_code == 400
    assert "Content-Type: application/json" in response.json()["error"]["message"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = [
    "model",
    "messages",
    "stream",
    "stream_options",
    "stop",
    "seed",
    "index",
    "retrieval",
    "n",
    "tools",
    "metadata",
]
PATHS = ["/v1/chat/completions", "/v1/search", "/v1/rerank", "/v1/embeddings"]


@settings(max_examples=60)
@given(
    path=st.sampled_from(PATHS), fields=st.dictionaries(st.sampled_from(FIELDS) | st.text(), json_values, max_size=3)
)
def test_whatever_the_fields_hold_the_answer_is_an_answer_or_a_400_or_404(
    api_server: LiveApi, path: str, fields: dict[str, Any]
) -> None:
    body = {**CHAT, **fields} if path.endswith("completions") else {"query": "x", "documents": ["d"], **fields}
    response = api_server.http.post(path, content=json.dumps(body).encode(), headers=JSON)
    assert response.status_code in (200, 400, 404)
    assert response.status_code == 200 or set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_openais_client_raises_the_error_of_a_wrong_field(api: LiveApi) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        api.openai(retries=3).chat.completions.create(**{**CHAT, "temperature": 9})
    assert caught.value.param == "temperature"
    assert caught.value.type == "invalid_request_error"
    assert "temperature=9: expected at most 2" in caught.value.message


def test_an_unknown_address_is_an_error_object(api: LiveApi) -> None:
    for method, path in (("GET", "/nothing"), ("POST", "/v1/completions"), ("GET", "/docs"), ("GET", "/v1/models/")):
        response = api.http.request(method, path)
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "not_found"


def test_a_wrong_method_is_405_and_says_which_is_right(api: LiveApi) -> None:
    for method, path, right in (("GET", "/v1/search", "POST"), ("DELETE", "/v1/models", "GET"), ("POST", "/", "GET")):
        response = api.http.request(method, path)
        assert response.status_code == 405
        assert right in response.headers["allow"]
        assert response.json()["error"]["code"] == "method_not_allowed"


def test_a_body_over_the_limit_is_413(api: LiveApi) -> None:
    error = api.error("/v1/search", {"query": "x" * (1 << 20)}, 413)
    assert "1,048,576 bytes" in error["message"]


def test_a_body_over_the_limit_is_413_also_when_its_length_is_not_announced(api: LiveApi) -> None:
    response = api.http.post("/v1/search", content=(b" " * 65_536 for _ in range(40)), headers=JSON)
    assert response.status_code == 413
    assert response.headers["x-should-retry"] == "false"


def test_a_client_that_sends_all_of_a_large_body_before_it_reads_is_told_that_it_is_413(api: LiveApi) -> None:
    with api.connect() as connection:
        connection.sendall(b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: 6000000\r\n\r\n" + b" " * 6_000_000)
        assert connection.recv(4_096).startswith(b"HTTP/1.1 413")


def test_a_body_that_is_announced_as_far_too_large_is_refused_without_waiting_for_it(api: LiveApi) -> None:
    with api.connect() as connection:
        connection.sendall(b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        assert connection.recv(4_096).startswith(b"HTTP/1.1 413")


def test_a_body_that_never_comes_is_408() -> None:
    with live(config=OPEN.model_copy(update={"deadline_s": 0.3})) as api, api.connect() as connection:
        connection.sendall(b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        assert connection.recv(4_096).startswith(b"HTTP/1.1 408")


def test_a_body_at_the_limit_is_read_whole() -> None:
    with live(config=OPEN.model_copy(update={"max_body_bytes": 2_000})) as api:
        body = b'{"query": "x"}'
        assert api.http.post("/v1/search", content=body.ljust(2_000), headers=JSON).status_code == 200
        assert api.http.post("/v1/search", content=body.ljust(2_001), headers=JSON).status_code == 413


@pytest.mark.parametrize("given", ["abc-1", "with space", "x" * 128, "~!\"'<>"])
def test_the_callers_id_of_a_request_is_kept(api: LiveApi, given: str) -> None:
    assert api.http.get("/livez", headers={"x-request-id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["x" * 129, "x" * 10_000, "näh".encode("latin-1"), "字".encode(), b"a\tb", ""])
def test_an_id_that_is_long_or_not_plain_is_replaced(api: LiveApi, given: str | bytes) -> None:
    made = api.http.get("/livez", headers=[(b"x-request-id", given.encode() if isinstance(given, str) else given)])
    assert made.status_code == 200
    assert len(made.headers["x-request-id"]) == 32


def test_every_response_has_an_id(api: LiveApi) -> None:
    responses = [
        api.http.get("/livez"),
        api.http.get("/nothing"),
        api.http.get("/"),
        api.post("/v1/search", {}),
        api.post("/v1/search", {"query": "x" * (1 << 20)}),
        api.post("/v1/chat/completions", {**CHAT, "stream": True}),
    ]
    ids = [response.headers["x-request-id"] for response in responses]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "soon", ""])
def test_a_timeout_that_is_no_time_is_400(api: LiveApi, given: str) -> None:
    assert api.error("/v1/search", {"query": "x"}, 400, x_request_timeout=given)["param"] == "x-request-timeout"


def test_a_timeout_beyond_the_servers_is_the_servers() -> None:
    with live(config=OPEN.model_copy(update={"deadline_s": 5.0})) as api:
        assert api.post("/v1/search", {"query": "x"}, x_request_timeout="999").status_code == 200
        assert api.backend.searches[0].budget_s <= 5


@pytest.mark.parametrize(
    ("path", "stage", "doing", "repeat"),
    [
        ("/v1/chat/completions", "search", "the index was searched", None),
        ("/v1/chat/completions", "condense", "the conversation was condensed", None),
        ("/v1/chat/completions", "generate", "the answer was generated", "false"),
        ("/v1/embeddings", "embed", "texts were embedded", None),
    ],
)
def test_a_deadline_is_408_and_says_what_took_the_time(path: str, stage: str, doing: str, repeat: str | None) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    body = {"model": "base", "messages": turns} if path.endswith("completions") else {"input": "a"}
    with live(FakeBackend(delays={stage: 30})) as api:
        # The other stages take no time, but a busy machine does.
        response = api.post(path, body, x_request_timeout="2")
        assert response.status_code == 408
        assert doing in response.json()["error"]["message"]
        assert response.headers.get("x-should-retry") == repeat
        wait_for(lambda: api.backend.cancelled == [stage])


def test_a_defect_is_500_and_tells_neither_caller_nor_log_what_was_asked(caplog: pytest.LogCaptureFixture) -> None:
    with live(FakeBackend(errors={"search": RuntimeError("while searching for: my secret")})) as api:
        response = api.post("/v1/search", {"query": "my secret"}, x_request_id="id-7")
        assert response.status_code == 500
        assert response.json()["error"]["code"] == "internal_error"
        assert "id-7" in response.json()["error"]["message"]
    logged = "\n".join(record.getMessage() for record in caplog.records)
    assert "request id-7" in logged
    assert "builtins.RuntimeError" in logged
    assert "retrieving.py" in logged
    assert "my secret" not in caplog.text + response.text


def test_the_access_log_has_a_line_in_json_for_each_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tandem.serve.access")
    with live() as api:
        api.post("/v1/search", {"query": "my secret"}, x_request_id="one", authorization="Bearer my secret")
        api.http.get("/v1/models/my-secret", headers={"x-request-id": "two"})
        api.http.get("/my-secret", headers={"x-request-id": "three"})
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "tandem.serve.access"]
    assert [(line["request_id"], line["route"], line["status"], line["error"]) for line in lines] == [
        ("one", "/v1/search", 200, None),
        ("two", "/v1/models/{model:path}", 404, "not_found"),
        ("three", None, 404, "not_found"),
    ]
    assert lines[0].keys() == {"request_id", "tenant", "method", "route", "status", "ms", "degraded", "error"}
    assert lines[0]["tenant"] == "everybody"
    assert "secret" not in caplog.text


def test_the_access_log_says_when_a_client_has_left_and_what_was_left_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tandem.serve.access")
    with live(FakeBackend(delays={"search": 60}, errors={"rerank": RuntimeError()})) as api:
        with api.connect() as connection:
            connection.sendall(
                b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b'Content-Length: 14\r\n\r\n{"query": "x"}'
            )
            wait_for(lambda: api.backend.searches)
        wait_for(lambda: '"status": 499' in caplog.text)
        api.backend.delays.clear()
        api.post("/v1/search", {"query": "x", "rerank": True})
        wait_for(lambda: '"degraded": ["rerank"]' in caplog.text)
