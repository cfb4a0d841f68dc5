"""A proxy between a client of S3 and the server, on real sockets, that does what networks and services do."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

Fault = Literal[
    "slow down",  # 503, and nothing has happened
    "error",  # 500, and nothing has happened
    "error after",  # 500, though it has happened
    "reset",  # the connection breaks before the request gets through
    "reset after",  # ... after it has got through: what was asked for has happened
    "reset within",  # ... while the body is sent
    "sleep",  # no answer in time, and nothing has happened
    "sleep after",  # ... though it has happened
    "cut",  # half of the body of the answer, then the connection breaks
]
FAULTS: tuple[Fault, ...] = Fault.__args__  # type: ignore[attr-defined]
SLEEP_SECONDS = 1.5
"""Longer than the client's timeout in these tests."""

_CODES = {"slow down": (503, "SlowDown"), "error": (500, "InternalError"), "error after": (500, "InternalError")}
_OF_A_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


class Proxy:
    """Forwards requests to a server; what happens to each is asked of `choose`, by its method and path."""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.choose: Callable[[str, str], Fault | None] = lambda method, path: None
        self.done: Counter[Fault] = Counter()
        self.requests: list[tuple[str, str]] = []
        self.url = ""
        self._turn = threading.Lock()

    def decide(self, method: str, path: str) -> Fault | None:
        with self._turn:
            self.requests.append((method, path))
            fault = self.choose(method, path)
            if fault is not None:
                self.done[fault] += 1
            return fault

    def at_random(self, seed: int, share: float, faults: tuple[Fault, ...] = FAULTS) -> None:
        """Let `share` of all requests meet a fault."""
        chance = random.Random(seed)
        self.choose = lambda method, path: chance.choice(faults) if chance.random() < share else None

    def once(self, method: str, ending: str, *faults: Fault) -> None:
        """Let the first requests of this method whose path ends so meet these faults, one each."""
        left = list(faults)
        self.choose = lambda asked, path: (
            left.pop(0) if left and asked == method and urlsplit(path).path.endswith(ending) else None
        )

    def harmless(self) -> None:
        self.choose = lambda method, path: None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def _serve(self) -> None:
        fault = self.proxy.decide(self.command, self.path)
        length = int(self.headers.get("Content-Length") or 0)
        if fault == "reset within":
            self.rfile.read(length // 2)
            return self._reset()
        body = self.rfile.read(length)
        if fault in ("reset", "sleep"):
            return self._break(fault)
        if fault in ("slow down", "error"):
            return self._refuse(fault)
        status, headers, answer = self._forwarded(body)
        if fault in ("reset after", "sleep after"):
            return self._break(fault)
        if fault == "error after":
            return self._refuse(fault)
        self._answer(status, headers, answer, cut=fault == "cut")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

    def _forwarded(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.proxy.upstream, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            connection.request(self.command, self.path, body=body, headers=headers)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], answer: bytes, cut: bool = False) -> None:
        self.send_response_only(status)
        length = str(len(answer))
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            elif name.lower() not in _OF_A_CONNECTION:
                self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer[: len(answer) // 2] if cut else answer)
        if cut:
            self.wfile.flush()
            self._reset()

    def _refuse(self, fault: Fault) -> None:
        status, code = _CODES[fault]
        answer = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
        self._answer(status, [("Content-Type", "application/xml")], answer)

    def _break(self, fault: Fault) -> None:
        if fault.startswith("sleep"):
            time.sleep(SLEEP_SECONDS)
        self._reset()

    def _reset(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def finish(self) -> None:
        with suppress(OSError, ValueError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None: ...


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has given up meanwhile is no defect."""


@contextmanager
def faulty(upstream: str) -> Iterator[Proxy]:
    """A proxy before the server at the URL `upstream`; without faults until it is told so."""
    proxy = Proxy(upstream)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
