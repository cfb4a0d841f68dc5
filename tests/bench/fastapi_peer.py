"""What one would write first: the same index and models behind FastAPI, in one process, a thread a request."""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI

from ray_jobs.answer.asking import ask, extractive_reader
from ray_jobs.index.search import SearchConfig
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.models.for_queries import load_for_queries
from ray_jobs.storage import open_storage

app = FastAPI()
snapshot = Snapshot.open(open_storage(os.environ["PEER_STORE"]), os.environ["PEER_INDEX"])
embedder = load_for_queries(None, snapshot.manifest.embedder)


@app.get("/ready")
def ready() -> dict[str, str]:
    """Whether it is up."""
    return {"status": "ok"}


@app.post("/v1/search")
def search(body: dict[str, Any]) -> dict[str, Any]:
    """Hits with their text."""
    (hits,) = snapshot.search([body["query"]], SearchConfig(k=body["k"]), embedder)
    return {"hits": [hit.to_dict() for hit in hits]}


@app.post("/v1/chat/completions")
def chat(body: dict[str, Any]) -> dict[str, Any]:
    """A cited answer."""
    config = SearchConfig(k=8, by="chunk")
    reader = extractive_reader(snapshot, embedder)
    return ask(snapshot, body["messages"][-1]["content"], config, embedder, reader).to_dict()
