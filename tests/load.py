"""Steady load on a server, and what became of every request."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

TIMEOUT_S = 60.0  # beyond every deadline of the server: a request that takes longer hangs


@dataclass
class Outcome:
    """One finished request."""

    kind: str  # "search", "reranked", "chat" or "stream"
    status: int  # 0: no answer at all
    seconds: float
    body: Any = None
    complete: bool = True  # a stream that ended as it should: whole, or with an error event
    failed: bool = False  # a stream with an error event


@dataclass
class Load:
    """Outcomes so far."""

    outcomes: list[Outcome] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, outcome: Outcome) -> None:
        """Record one."""
        with self.lock:
            self.outcomes.append(outcome)

    def count(self) -> int:
        """How many requests have finished."""
        with self.lock:
            return len(self.outcomes)

    def of(self, kind: str) -> list[Outcome]:
        """The outcomes of one kind."""
        with self.lock:
            return [outcome for outcome in self.outcomes if outcome.kind == kind]


@contextmanager
def steady(url: str, key: str, questions: list[str], kinds: tuple[str, ...], workers: int = 2) -> Iterator[Load]:
    """`workers` threads a kind that ask one question after the other until the block ends."""
    load, stop = Load(), threading.Event()
    asks: dict[str, Callable[[httpx2.Client, str], Outcome]] = {
        "search": search,
        "reranked": reranked,
        "chat": chat,
        "stream": stream,
    }

    def work(kind: str, offset: int) -> None:
        with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=TIMEOUT_S) as client:
            number = offset
            while not stop.is_set():
                load.add(asks[kind](client, questions[number % len(questions)]))
                number += 1

    threads = [threading.Thread(target=work, args=(kind, n), daemon=True) for kind in kinds for n in range(workers)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stop.set()
        for thread in threads:
            thread.join(2 * TIMEOUT_S)
        assert not any(thread.is_alive() for thread in threads), "a request hangs"


def search(client: httpx2.Client, question: str) -> Outcome:
    """POST /v1/search."""
    return _post(client, "search", "/v1/search", {"query": question, "k": 5})


def reranked(client: httpx2.Client, question: str) -> Outcome:
    """The same, reranked."""
    return _post(client, "reranked", "/v1/search", {"query": question, "k": 5, "rerank": True})


def chat(client: httpx2.Client, question: str) -> Outcome:
    """POST /v1/chat/completions."""
    body = {"model": "extractive", "messages": [{"role": "user", "content": question}]}
    return _post(client, "chat", "/v1/chat/completions", body)


def stream(client: httpx2.Client, question: str) -> Outcome:
    """The same, streamed; complete when it ends with [DONE]."""
    body = {"model": "extractive", "stream": True, "messages": [{"role": "user", "content": question}]}
    started = time.monotonic()
    events: list[str] = []
    try:
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != 200:
                response.read()
                return Outcome("stream", response.status_code, time.monotonic() - started)
            events = [line[len("data: ") :] for line in response.iter_lines() if line.startswith("data: ")]
    except httpx2.HTTPError:
        return Outcome("stream", 0, time.monotonic() - started, complete=False)
    seconds = time.monotonic() - started
    parsed = [json.loads(event) for event in events if event != "[DONE]"]
    failed = any("error" in event for event in parsed)
    return Outcome("stream", 200, seconds, parsed, complete=events[-1:] == ["[DONE]"], failed=failed)


def _post(client: httpx2.Client, kind: str, path: str, body: dict[str, Any]) -> Outcome:
    started = time.monotonic()
    try:
        response = client.post(path, json=body)
    except httpx2.HTTPError:
        return Outcome(kind, 0, time.monotonic() - started)
    return Outcome(kind, response.status_code, time.monotonic() - started, response.json())


def versions_in(texts: list[str]) -> set[int]:
    """The snapshots that marked texts come from: each says `edition N`."""
    return {int(found) for text in texts for found in re.findall(r"edition (\d+)", text)}
