"""The API over a fake backend, on a real server in a thread of this process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import uvicorn
from fake_backend import FakeBackend
from openai import OpenAI
from waiting import wait_for

from serve.api.app import make_app
from serve.api.config import ApiConfig

OPEN = ApiConfig(open=True, description_s=0)
CHAT: dict[str, Any] = {"model": "base", "messages": [{"role": "user", "content": "What is written last?"}]}


@dataclass
class LiveApi:
    """Where the server is, and ways to reach it."""

    port: int
    backend: FakeBackend
    http: httpx2.Client = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20)

    def openai(self, key: str = "unused", retries: int = 0) -> OpenAI:
        """OpenAI's own client."""
        return OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key=key, max_retries=retries, timeout=20)

    def post(self, path: str, body: Any, **headers: str) -> httpx2.Response:
        """Send JSON."""
        return self.http.post(
            path, json=body, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )

    def error(self, path: str, body: Any, status: int, **headers: str) -> dict[str, Any]:
        """The error that sending JSON ends in; its status must be `status`."""
        response = self.post(path, body, **headers)
        assert response.status_code == status, response.text
        assert set(response.json()) == {"error"}
        error: dict[str, Any] = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert "\n" not in error["message"]
        return error

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        """A bare connection."""
        connection = socket.socket()
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", self.port))
        return connection


@contextmanager
def live(backend: FakeBackend | None = None, config: ApiConfig = OPEN) -> Iterator[LiveApi]:
    """Serve `backend` as long as the block lasts."""
    backend = backend or FakeBackend()
    app = make_app(backend, config)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started)
        api = LiveApi(server.servers[0].sockets[0].getsockname()[1], backend)
        with api.http:
            yield api
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
