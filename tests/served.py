"""An index made with the fake embedder, and a server over it on a real Ray cluster."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from processes import of_this_run
from small_index import SmallDocument, build_index
from waiting import wait_for

from ray_jobs.index.manifest import commit, read
from ray_jobs.models.embedder import Embedder, EmbedderConfig
from ray_jobs.storage import LocalStorage
from serve.transport import free_ports

EMBEDDER = EmbedderConfig(engine="fake", model="fake")

FACTS = {
    "paris": "Paris is the capital of France. The city lies on the river Seine.",
    "berlin": "Berlin is the capital of Germany. The city lies on the river Spree.",
    "rome": "Rome is the capital of Italy. The city lies on the river Tiber.",
    "madrid": "Madrid is the capital of Spain. The city lies on the river Manzanares.",
    "tokyo": "Tokyo is the capital of Japan. 东京是日本的首都。The city lies at Tokyo Bay.",
    "ottawa": "Ottawa is the capital of Canada. The city lies on the Ottawa River.",
    "cairo": "Cairo is the capital of Egypt. The city lies on the river Nile.",
    "lima": "Lima is the capital of Peru. The city lies on the river Rimac.",
}


QUESTIONS = [f"What is the capital of {country}?" for country in ("France", "Germany", "Italy", "Spain", "Japan")]


def edition(number: int) -> dict[str, str]:
    """The facts, each marked with the snapshot that it is in."""
    return {name: f"{text} This is edition {number}." for name, text in FACTS.items()}


def publish(store: Path, texts: Mapping[str, str], name: str = "facts", number: int = 1, shards: int = 4) -> None:
    """Publish snapshot `number` of an index with one chunk a document; `length` is metadata."""
    storage = LocalStorage(store)
    embedder = Embedder.load(EMBEDDER)
    vectors = embedder.encode_documents(list(texts.values()))
    documents = [
        SmallDocument(doc_id, [(text, vector.tolist())], {"length": len(text)})
        for (doc_id, text), vector in zip(texts.items(), vectors, strict=True)
    ]
    manifest = build_index(storage, store.parent / f"build-{name}-{number}", documents, shards, "Flat", name, number)
    commit(storage, manifest.model_copy(update={"embedder": embedder.identity}))


def roll_back(store: Path, old: int, number: int, name: str = "facts") -> None:
    """Publish the content of snapshot `old` as `number`."""
    storage = LocalStorage(store)
    commit(storage, read(storage, name, old).model_copy(update={"number": number, "parent": number - 1}))


def free_port() -> int:
    """A port that nobody listens on."""
    return free_ports(1)[0]


@contextmanager
def http(port: int, traces: float = 0.0) -> Iterator[None]:
    """Ray Serve with its proxy at `port`, for the length of a test module; `traces` is the share that is traced."""
    from ray import serve

    from serve.tracing import tracing_config

    serve.start(http_options={"host": "127.0.0.1", "port": port}, tracing_config=tracing_config(traces))
    try:
        yield
    finally:
        serve.shutdown()


@contextmanager
def deployed(config: Any, port: int) -> Iterator[str]:
    """The application of `config`, ready; gives its URL."""
    from ray import serve

    from serve.app import build

    url = f"http://127.0.0.1:{port}"
    serve.run(build(config), name=config.application, route_prefix="/")
    try:
        wait_for(lambda: status_of(f"{url}/readyz") == 200, 60)
        yield url
    finally:
        serve.delete(config.application)


def status_of(url: str) -> int:
    """The status of a GET; 0 when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


def kill(application: str, deployment: str) -> None:
    """SIGKILL to the process of a replica; waits for one, where the last was killed before."""
    replica = f"ray::ServeReplica:{application}:{deployment}"
    wait_for(lambda: of_this_run(replica), 60)
    of_this_run(replica)[0].kill()


def live(web: httpx2.Client) -> int:
    """The snapshot that answers."""
    number: int = web.post("/v1/search", json={"query": QUESTIONS[0]}).json()["snapshot"]
    return number


def whole(web: httpx2.Client) -> bool:
    """Whether everything answers."""
    if web.get("/readyz").status_code != 200:
        return False
    reply = web.post("/v1/search", json={"query": QUESTIONS[0]})
    return reply.status_code == 200 and not reply.json()["coverage"]["degraded"]
