"""Streamed chat completions: what comes when, and how a stream ends."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Callable
from typing import Any

import openai
import pytest
from fake_backend import PARTIAL, FakeBackend, quote
from live_api import CHAT, OPEN, LiveApi, live
from waiting import wait_for

from ray_jobs.answer.protocol import TextDelta
from serve.errors import UnavailableError

pytest_plugins = ["api_fixtures"]

STREAM = {**CHAT, "stream": True}


def stream(api: LiveApi, **beside: Any) -> list[dict[str, Any]]:
    """The chunks of a stream, which must end with DONE."""
    response = api.post("/v1/chat/completions", {**STREAM, **beside})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, done, rest = response.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def send(api: LiveApi, body: Any, receive_buffer: int | None = None, timeout: str = "30") -> socket.socket:
    """Ask over a bare connection, and read nothing yet."""
    connection = api.connect(receive_buffer)
    content = json.dumps(body).encode()
    connection.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"X-Request-Timeout: %s\r\nContent-Length: %d\r\n\r\n%s" % (timeout.encode(), len(content), content)
    )
    return connection


def test_openais_client_streams_an_answer(api: LiveApi) -> None:
    chunks = list(api.openai().chat.completions.create(**STREAM, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "The manifest is written last. [1]"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert len({chunk.id for chunk in chunks}) == 1


def test_sources_come_first_and_the_result_last(api: LiveApi) -> None:
    first, *_, last = stream(api)
    assert len(first["sources"]) == 8
    assert first["choices"][0]["finish_reason"] is None
    assert last["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert last["grounded"] is True
    assert last["snapshot"] == {"index": "docs", "number": 7}
    assert last["timings"].keys() >= {"retrieve", "generate", "first_token", "total"}
    assert [citation["number"] for citation in last["citations"]] == [1]


def test_each_citation_comes_in_a_chunk_of_its_own(api: LiveApi) -> None:
    chunks = stream(api)
    (cited,) = [chunk for chunk in chunks if "citation" in chunk]
    assert cited["choices"][0]["delta"] == {}
    assert cited["citation"] == chunks[-1]["citations"][0]


def test_usage_is_told_only_when_it_was_asked_for(api: LiveApi) -> None:
    assert not any("usage" in chunk for chunk in stream(api))
    assert stream(api, stream_options={"include_usage": True})[-1]["usage"]["total_tokens"] == 97


def test_a_stream_and_a_whole_answer_say_the_same(api: LiveApi) -> None:
    whole = api.post("/v1/chat/completions", CHAT).json()
    *chunks, last = stream(api)
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == whole["choices"][0]["message"]["content"]
    assert {name: last[name] for name in ("citations", "coverage", "grounded", "snapshot", "degraded")} == {
        name: whole[name] for name in ("citations", "coverage", "grounded", "snapshot", "degraded")
    }
    assert chunks[0]["sources"] == whole["sources"]


def test_sources_are_there_while_the_answer_is_still_awaited() -> None:
    with (
        live(FakeBackend(script=lambda call: [20.0])) as api,
        api.http.stream("POST", "/v1/chat/completions", json=STREAM) as response,
    ):
        assert "sources" in json.loads(next(response.iter_lines()).removeprefix("data: "))


def test_an_error_after_the_start_is_an_event_and_then_the_end() -> None:
    backend = FakeBackend(script=lambda call: [TextDelta("The man"), 0.3, UnavailableError("the generator has gone")])
    with live(backend) as api:
        *_, error = stream(api)
        assert error["error"]["message"] == "the generator has gone"
        assert error["error"]["code"] == "unavailable"
        with pytest.raises(openai.APIError, match="the generator has gone"):
            list(api.openai().chat.completions.create(**STREAM))


def test_a_defect_in_mid_stream_ends_it_without_telling_anything(caplog: pytest.LogCaptureFixture) -> None:
    backend = FakeBackend(script=lambda call: [TextDelta("x"), 0.3, RuntimeError(call.question)])
    with live(backend) as api:
        *_, error = stream(api)
        assert error["error"]["code"] == "internal_error"
        assert "written last" not in error["error"]["message"]
        assert "written last" not in caplog.text
        assert "RuntimeError" in caplog.text


def test_a_deadline_in_mid_stream_is_an_event_and_then_the_end() -> None:
    backend = FakeBackend(script=lambda call: [TextDelta("The man"), 20.0])
    with live(backend) as api:
        started = time.monotonic()
        response = api.post("/v1/chat/completions", STREAM, x_request_timeout="0.6")
        assert time.monotonic() - started < 5
        assert response.status_code == 200
        *_, error, done, _ = response.text.split("\n\n")
        assert json.loads(error.removeprefix("data: "))["error"]["code"] == "deadline_exceeded"
        assert done == "data: [DONE]"
        wait_for(lambda: backend.closed == 1)


def test_a_missing_partition_is_in_the_header_before_the_stream_begins() -> None:
    with (
        live(FakeBackend(coverage=PARTIAL)) as api,
        api.http.stream("POST", "/v1/chat/completions", json=STREAM) as response,
    ):
        assert response.headers["x-tandem-coverage"] == "0.75"


@pytest.mark.parametrize("streaming", [True, False])
def test_a_client_that_leaves_ends_the_generation_at_once(streaming: bool) -> None:
    backend = FakeBackend(script=lambda call: [TextDelta("The man"), 60.0])
    with live(backend) as api:
        connection = send(api, {**CHAT, "stream": streaming})
        wait_for(lambda: backend.produced == 1)
        assert backend.closed == 0
        connection.close()
        wait_for(lambda: backend.closed == 1, seconds=5)


@pytest.mark.parametrize("stage", ["condense", "search", "rerank", "generate"])
def test_a_client_that_leaves_ends_whatever_is_being_done(stage: str) -> None:
    backend = FakeBackend(delays={stage: 60.0})
    config = OPEN.model_copy(update={"rerank": OPEN.rerank.model_copy(update={"timeout_s": 60.0})})
    turns = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    asked = {
        "condense": backend.condenses,
        "search": backend.searches,
        "rerank": backend.reranks,
        "generate": backend.generations,
    }
    with live(backend, config) as api:
        connection = send(api, {"model": "base", "messages": turns, "retrieval": {"rerank": True}})
        wait_for(lambda: asked[stage])
        connection.close()
        wait_for(lambda: backend.cancelled == [stage], seconds=5)


def test_a_slow_reader_slows_the_generation_and_holds_no_memory() -> None:
    pieces = 2_000
    backend = FakeBackend(script=lambda call: [TextDelta("x" * 20_000)] * pieces)
    with live(backend) as api:
        connection = send(api, STREAM, receive_buffer=4_096)
        connection.recv(1_000)
        wait_for(stands_still(backend))
        assert 0 < backend.produced < pieces / 2
        connection.close()
        wait_for(lambda: backend.closed == 1, seconds=5)


def test_a_reader_that_has_stopped_gives_its_place_back_at_the_deadline(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tandem.serve.access")
    backend = FakeBackend(script=lambda call: [TextDelta("x" * 20_000)] * 2_000)
    with live(backend, OPEN.model_copy(update={"generations": 1})) as api:
        connection = send(api, STREAM, receive_buffer=4_096, timeout="0.5")
        wait_for(lambda: backend.closed == 1, seconds=10)
        backend.script = quote
        assert api.post("/v1/chat/completions", CHAT).status_code == 200
        # The request of the stopped reader comes to an end, too, although it still holds the connection.
        wait_for(lambda: "deadline_exceeded" in caplog.text, seconds=10)
        connection.close()


def stands_still(backend: FakeBackend) -> Callable[[], bool]:
    """Whether a generation that has begun has given nothing for a while."""
    last, since = -1, 0.0

    def check() -> bool:
        nonlocal last, since
        if backend.produced != last:
            last, since = backend.produced, time.monotonic()
        return last > 0 and time.monotonic() - since > 0.3

    return check
