"""A small OpenAI-compatible endpoint on a real socket; the model's name says how it behaves."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

KEY = "sk-very-secret-0123456789"
WORDS = ["A task", " reserves", " one", " CPU", " [", "1", "].", " More", " words", " follow", "."]


@dataclass
class Endpoint:
    """Its address, what it was asked, and how many answers it is in the middle of."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    open: int = 0
    hung_up: int = 0
    patience_s: float = 60.0  # after which "endless" ends after all

    async def answer(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        self.headers.append(dict(request.headers))
        model = str(body["model"])
        if request.headers.get("authorization") not in (f"Bearer {KEY}", "Bearer none"):
            said = f"Incorrect API key provided: {request.headers.get('authorization')}"
            return JSONResponse({"error": {"message": said}}, 401)
        if model.startswith("status-"):
            status = int(model.removeprefix("status-"))
            return JSONResponse({"error": {"message": f"refused with key {KEY} in it\nsecond line"}}, status)
        if model == "mute":
            await self._until_gone(request)
        return StreamingResponse(self._stream(request, body), media_type="text/event-stream")

    async def _stream(self, request: Request, body: dict[str, Any]) -> AsyncIterator[str]:
        self.open += 1
        try:
            async for line in self._lines(request, body):
                yield line
        finally:
            self.open -= 1

    async def _lines(self, request: Request, body: dict[str, Any]) -> AsyncIterator[str]:
        model = body["model"]
        if model == "condenser":
            for word in ("Question: Why", " does Serve", " scale?\n", "Glad to help."):
                yield chunk({"content": word})
            yield chunk({}, "stop")
            return
        words = [*([" ", "\n "] if model == "indented" else []), *WORDS[: body["max_tokens"]]]
        for word in words:
            yield chunk({"content": word})
        if model == "endless" and await self._until_gone(request):
            return
        if model == "error-inside":
            yield f"data: {json.dumps({'error': {'message': f'engine died, key {KEY}'}})}\n\n"
            return
        if model == "half":
            return
        yield chunk({}, "length" if len(words) < len(WORDS) else "stop")
        usage = {"prompt_tokens": 40, "completion_tokens": len(words), "total_tokens": 40 + len(words)}
        yield f"data: {json.dumps({'id': 'x', 'object': 'chat.completion.chunk', 'choices': [], 'usage': usage})}\n\n"
        yield "data: [DONE]\n\n"

    async def _until_gone(self, request: Request) -> bool:
        """Whether the caller has left."""
        self.open += 1
        until = time.monotonic() + self.patience_s
        try:
            while not await request.is_disconnected():
                if time.monotonic() > until:
                    return False
                await asyncio.sleep(0.01)
            self.hung_up += 1
            return True
        except asyncio.CancelledError:
            self.hung_up += 1
            raise
        finally:
            self.open -= 1


def chunk(delta: dict[str, str], finish_reason: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return f"data: {json.dumps({'id': 'x', 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"


@contextmanager
def serving() -> Iterator[Endpoint]:
    """The endpoint, listening on a free port."""
    endpoint = Endpoint()
    app = FastAPI()
    app.add_api_route("/v1/chat/completions", endpoint.answer, methods=["POST"], response_model=None)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    endpoint.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    yield endpoint
    server.should_exit = server.force_exit = True
    thread.join(20)
