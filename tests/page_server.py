"""A server that speaks the contract of the API with scripted replies, for the tests of the page.

It serves the page's files as they are, with the Content-Security-Policy that the API sends. An answer is a script of
steps: an object is sent as an event, a text as it stands, a `Gate` holds the stream until the test opens it. What was
asked is recorded, and which answers the browser did not wait for.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import uvicorn
from page_corpus import BATCHES, CHINESE, SCALING, PageDocument
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

PAGE = Path(__file__).resolve().parent.parent / "serve" / "page"

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

COVERED = {"partitions_total": 4, "partitions_ok": 4, "documents": 1.0, "degraded": False, "missing": []}
PARTIAL = {"partitions_total": 4, "partitions_ok": 3, "documents": 0.7512, "degraded": True, "missing": [2]}

TIMINGS = {
    "embed": 8.4,
    "statistics": 1.2,
    "candidates": 14.9,
    "merge": 0.6,
    "rows": 3.1,
    "retrieve": 29.8,
    "rerank": 41.0,
    "generate": 152.3,
    "first_token": 118.0,
    "total": 231.7,
}

MODELS = [
    {"id": "reader", "object": "model", "created": 0, "owned_by": "tandem", "kind": "generator"},
    {"id": "reader:support", "object": "model", "created": 0, "owned_by": "tandem", "kind": "generator"},
    {"id": "minilm", "object": "model", "created": 0, "owned_by": "tandem", "kind": "embedder"},
    {"id": "cross", "object": "model", "created": 0, "owned_by": "tandem", "kind": "reranker"},
]

SCHEMA = {"lang": "string", "year": "int", "tags": "list<string>", "title": "string", "review date": "timestamp"}


@dataclass
class Gate:
    """Holds a stream until it is opened."""

    event: asyncio.Event = field(default_factory=asyncio.Event)


Step = Mapping[str, Any] | str | Gate


@dataclass(frozen=True)
class Failing:
    """A reply that is an error."""

    status: int
    message: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def chunk(content: str = "", **beside: Any) -> dict[str, Any]:
    """One event of a streamed answer."""
    finish = beside.pop("finish_reason", None)
    choice = {"index": 0, "delta": {"content": content} if content else {}, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "reader", "choices": [choice], **beside}


def last(citations: Sequence[Mapping[str, Any]], **beside: Any) -> dict[str, Any]:
    """The event that ends an answer."""
    said = {"citations": citations, "coverage": COVERED, "grounded": bool(citations), "timings": TIMINGS}
    return chunk(**{"finish_reason": "stop", **said, "snapshot": {"index": "docs", "number": 7}, **beside})


def quoting(*quotes: tuple[PageDocument, str], others: Sequence[PageDocument] = (), **end: Any) -> list[Step]:
    """The script of an answer of quotes, each from its document; `others` are retrieved and not cited."""
    documents = list(dict.fromkeys([*(document.doc_id for document, _ in quotes), *(one.doc_id for one in others)]))
    known = {document.doc_id: document for document in [*(document for document, _ in quotes), *others]}
    sources = [known[doc_id].source_line(number) for number, doc_id in enumerate(documents, 1)]
    steps: list[Step] = [chunk(sources=sources)]
    citations = []
    for position, (document, quote) in enumerate(quotes):
        number = documents.index(document.doc_id) + 1
        citations.append(document.citation(number, quote))
        steps += [chunk(f"{chr(10) * bool(position)}{' '.join(quote.split())} [{number}]")]
        steps += [chunk(citation=citations[-1])]
    return [*steps, last(citations, **end), "[DONE]"]


class PageServer:
    """The scripted server on a port of its own; what it serves may be changed while it runs."""

    def __init__(self) -> None:
        self.forget()
        self._loop = asyncio.new_event_loop()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/"
        config = uvicorn.Config(self._app(), log_level="error", lifespan="off", ws="none", http="h11", access_log=False)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="page-server")

    def forget(self) -> None:
        """Be as new: nothing recorded, and the replies of an ordinary day."""
        self.key: str | None = None
        self.asked: list[dict[str, Any]] = []  # bodies of the posts, with their path
        self.fetched: list[str] = []  # paths of the gets, files left out
        self.abandoned: list[str] = []  # questions whose answer the browser did not take
        self.models: list[dict[str, Any]] = MODELS
        self.indexes: list[dict[str, Any]] = [_index("docs", default=True), _index("notes")]
        self.status: dict[str, Any] = _status()
        self.answers: dict[str, Sequence[Step] | Failing] = {}
        self.searches: dict[str, dict[str, Any] | Failing] = {}
        self.failing: dict[str, Failing] = {}  # by path

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join()
        self._loop.close()
        self._socket.close()

    def open(self, gate: Gate) -> None:
        """Let a stream go on."""
        self._loop.call_soon_threadsafe(gate.event.set)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._server.serve(sockets=[self._socket]))

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/", self._file),
                Route("/page/{name}", self._file),
                Route("/v1/models", self._get),
                Route("/v1/indexes", self._get),
                Route("/v1/status", self._get),
                Route("/v1/search", self._search, methods=["POST"]),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
            ]
        )

    async def _file(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        # Kept by the browser, so that a test waits for few files.
        return FileResponse(PAGE / name, headers={"content-security-policy": POLICY, "cache-control": "max-age=600"})

    async def _get(self, request: Request) -> Response:
        path = request.url.path
        self.fetched.append(path)
        refused = self._refusal(request)
        if refused:
            return refused
        listed = {"/v1/models": self.models, "/v1/indexes": self.indexes}
        return JSONResponse(self.status if path == "/v1/status" else {"object": "list", "data": listed[path]})

    async def _search(self, request: Request) -> Response:
        body = await self._body(request)
        refused = self._refusal(request)
        if refused:
            return refused
        found = self.searches.get(body["query"], _found())
        return _error(found) if isinstance(found, Failing) else JSONResponse(found)

    async def _chat(self, request: Request) -> Response:
        body = await self._body(request)
        refused = self._refusal(request)
        if refused:
            return refused
        question = body["messages"][-1]["content"]
        script = self.answers.get(question, quoting((BATCHES, BATCHES.passage.split(". ")[0] + ".")))
        if isinstance(script, Failing):
            return _error(script)
        headers = {"x-request-id": "req-1", "cache-control": "no-store"}
        return StreamingResponse(self._stream(question, script), media_type="text/event-stream", headers=headers)

    async def _stream(self, question: str, script: Sequence[Step]) -> AsyncIterator[str]:
        ended = False
        try:
            for step in script:
                if isinstance(step, Gate):
                    await step.event.wait()
                else:
                    yield f"data: {step if isinstance(step, str) else json.dumps(step)}\n\n"
            ended = True
        finally:
            if not ended:
                self.abandoned.append(question)

    async def _body(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = await request.json()
        self.asked.append({"path": request.url.path, **body})
        return body

    def _refusal(self, request: Request) -> Response | None:
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return _error(Failing(401, "no such key", headers={"x-should-retry": "false"}))
        failing = self.failing.get(request.url.path)
        return _error(failing) if failing else None


def _error(failing: Failing) -> Response:
    error = {"message": failing.message, "type": "error", "param": failing.param, "code": None}
    headers = {"x-request-id": "req-err", **failing.headers}
    return JSONResponse({"error": error}, status_code=failing.status, headers=headers)


def _index(name: str, default: bool = False) -> dict[str, Any]:
    counted = {"documents": 12_408, "chunks": 61_377} if default else {"documents": 1, "chunks": 2}
    schema = SCHEMA if default else {}
    return {"id": name, "snapshot": 7, **counted, "embedder": "minilm", "metadata": schema, "default": default}


def _status() -> dict[str, Any]:
    deployments = [("Gateway", 1, 1), ("Retriever", 1, 1), ("Partition-0", 2, 2), ("Partition-1", 1, 2)]
    return {
        "indexes": [
            {"id": "docs", "snapshot": 7, "loading": 8, "coverage": COVERED},
            {"id": "notes", "snapshot": 2, "loading": None, "coverage": PARTIAL},
        ],
        "deployments": [
            {"name": name, "status": "HEALTHY" if have == want else "UPDATING", "replicas": have, "wanted": want}
            for name, have, want in deployments
        ],
    }


def _found() -> dict[str, Any]:
    hits = [
        BATCHES.hit(1, {"dense": 0.7123, "lexical": 14.21, "rerank": 4.3}),
        SCALING.hit(2, {"dense": 0.4417, "rerank": -1.8}),
        CHINESE.hit(3, {"dense": 0.3901, "lexical": 6.02, "rerank": -6.25}),
    ]
    timings = {name: ms for name, ms in TIMINGS.items() if name not in ("generate", "first_token")}
    return found(hits, timings={**timings, "total": 74.2})


def found(hits: Sequence[Mapping[str, Any]], **beside: Any) -> dict[str, Any]:
    """The reply of a search."""
    made = {"object": "search.results", "index": "docs", "snapshot": 7, "coverage": COVERED, "degraded": []}
    return {**made, "hits": hits, "timings": {"total": 1.0}, **beside}
