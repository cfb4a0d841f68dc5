"""Long streams on a real server: callers that leave, a generator that dies, time that runs out, places that are taken.

What writes the answers is an endpoint that says some words and then nothing, until it is left.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx2
import pytest
from served import QUESTIONS, deployed, edition, free_port, http, kill, publish, whole
from upstream_server import Endpoint, serving
from waiting import wait_for

APPLICATION = f"tandem-{uuid.uuid4().hex[:8]}"
PLACES = 2
REQUESTS = 8


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with serving() as started:
        yield started


@pytest.fixture(scope="module")
def url(ray_session: None, endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from serve.config import ServeConfig

    store = tmp_path_factory.mktemp("streams") / "store"
    publish(store, edition(1))
    config = ServeConfig.model_validate(
        {
            "application": APPLICATION,
            "store": str(store),
            "index": ["facts"],
            "generator": {"engine": "openai", "model": "endless", "base_url": endpoint.url},
            "api": {"open": True, "generations": PLACES, "requests": REQUESTS},
        }
    )
    port = free_port()
    with http(port), deployed(config, port) as address:
        yield address


@pytest.fixture
def web(url: str, endpoint: Endpoint) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=url, timeout=60) as made:
        wait_for(lambda: whole(made), 60)
        yield made
    wait_for(lambda: endpoint.open == 0)


@contextmanager
def stream(web: httpx2.Client, **headers: str) -> Iterator[Iterator[dict[str, Any]]]:
    """The events of a streamed answer; the last is {"done": true}."""
    body = {"model": "endless", "stream": True, "messages": [{"role": "user", "content": QUESTIONS[0]}]}
    with web.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
        assert response.status_code == 200
        lines = (line[len("data: ") :] for line in response.iter_lines() if line.startswith("data: "))
        yield ({"done": True} if line == "[DONE]" else json.loads(line) for line in lines)


def said(events: Iterator[dict[str, Any]]) -> str:
    """The first text of the answer."""
    for event in events:
        choices = event.get("choices") or [{}]
        if text := choices[0].get("delta", {}).get("content"):
            return str(text)
    raise AssertionError("the stream ended without a word")


def test_a_caller_that_leaves_ends_the_generation(web: httpx2.Client, endpoint: Endpoint) -> None:
    before = endpoint.hung_up
    with stream(web) as events:
        assert said(events)
        assert endpoint.open > 0
    wait_for(lambda: endpoint.hung_up > before)


def test_time_that_runs_out_in_mid_stream_ends_it_with_an_error(web: httpx2.Client) -> None:
    started = time.monotonic()
    with stream(web, **{"x-request-timeout": "3"}) as events:
        assert said(events)
        rest = list(events)
    assert rest[-1] == {"done": True}
    assert "error" in rest[-2]
    assert time.monotonic() - started < 10


def test_without_a_free_place_nothing_is_spent(web: httpx2.Client, endpoint: Endpoint) -> None:
    body = {"model": "endless", "messages": [{"role": "user", "content": QUESTIONS[0]}]}
    with ExitStack() as held:
        for _ in range(PLACES):
            assert said(held.enter_context(stream(web)))
        asked = len(endpoint.asked)
        refused = web.post("/v1/chat/completions", json=body)
        assert refused.status_code == 429
        assert float(refused.headers["retry-after"]) > 0
        assert len(endpoint.asked) == asked
    wait_for(lambda: endpoint.open == 0)


def test_beyond_what_it_can_do_the_server_refuses_and_goes_on(web: httpx2.Client, url: str) -> None:
    async def burst() -> list[httpx2.Response]:
        limits = httpx2.Limits(max_connections=200)
        async with httpx2.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
            body = {"query": QUESTIONS[0]}
            return await asyncio.gather(*(client.post("/v1/search", json=body) for _ in range(150)))

    replies = asyncio.run(burst())
    refused = [reply for reply in replies if reply.status_code == 429]
    answered = [reply for reply in replies if reply.status_code == 200]
    assert len(refused) + len(answered) == len(replies)
    assert len(answered) >= REQUESTS
    assert refused
    assert {reply.json()["error"]["code"] for reply in refused} == {"rate_limit_exceeded"}
    assert all(float(reply.headers["retry-after"]) > 0 for reply in refused)
    assert web.post("/v1/search", json={"query": QUESTIONS[0]}).status_code == 200


def test_a_generator_killed_in_mid_stream_ends_it_with_an_error(web: httpx2.Client) -> None:
    started = time.monotonic()
    with stream(web) as events:
        assert said(events)
        kill(APPLICATION, "Generator")
        rest = list(events)
    assert rest[-1] == {"done": True}
    assert "error" in rest[-2]
    assert time.monotonic() - started < 30


def test_a_server_that_stops_finishes_what_it_has_begun(
    ray_session: None, url: str, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last test here: the server is gone after it."""
    from ray import serve

    monkeypatch.setattr(endpoint, "patience_s", 5.0)
    with httpx2.Client(base_url=url, timeout=60) as web, stream(web) as events:
        assert said(events)
        stopping = threading.Thread(target=serve.delete, args=(APPLICATION,))
        stopping.start()
        rest = list(events)
        stopping.join()
    assert rest[-1] == {"done": True}
    assert not any("error" in event for event in rest)
    assert any((event.get("choices") or [{}])[0].get("finish_reason") == "stop" for event in rest)
