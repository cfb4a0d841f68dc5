"""`tandem serve --index NAME`: deploy the server, here or on the cluster that RAY_ADDRESS names."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Self

import yaml
from pydantic import Field, model_validator

from cluster.settings import Command, show
from ray_jobs.errors import TandemError, UsageError
from ray_jobs.storage import open_storage
from serve.config import ServeConfig
from serve.tracing import tracing_config
from serve.transport import is_free, prefer_fast

if TYPE_CHECKING:
    from ray_jobs.index.manifest import Manifest

IMPORT_PATH = "serve.app:build"


class ServeCommand(ServeConfig, Command):
    """Serve one or more indices over HTTP: an OpenAI-compatible API, search, and a page."""

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0: every one")
    port: int = Field(8000, ge=1, le=65535, description="port to listen on")
    dry_run: bool = Field(False, description="print the Ray Serve config that 'serve deploy' takes, and stop")
    traces: float = Field(0.0, ge=0, le=1, description="share of requests that are traced; see serve/tracing.py")
    own_models: bool = Field(
        True, description="answer by the reader and the reranker that Tandem carries where none is configured"
    )
    detach: bool = Field(False, description="leave the server running on the cluster and return")

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.api.open and self.host not in ("127.0.0.1", "localhost", "::1"):
            raise ValueError(f"host={self.host} with api.open=true: everyone on the network could ask; set api.tenants")
        return self

    @classmethod
    def keys_of(cls, loaded: dict[str, Any]) -> dict[str, Any]:
        """Take a Ray Serve config too: the arguments of its application, and its address."""
        if "applications" not in loaded:
            return loaded
        ours = [item for item in loaded["applications"] or () if item.get("import_path") == IMPORT_PATH]
        if len(ours) != 1:
            raise UsageError(f"config: {len(ours)} applications with import_path={IMPORT_PATH}; expected one")
        options = {key: value for key, value in (loaded.get("http_options") or {}).items() if key in ("host", "port")}
        tracing = loaded.get("tracing_config") or {}
        traces = tracing.get("sampling_ratio", 0.0) if tracing.get("enabled") else 0.0
        # What such a config names is all that it means.
        named = {"application": ours[0].get("name", "tandem"), "traces": traces, "own_models": False}
        return {**named, **ours[0].get("args", {}), **options}

    def serve_config(self) -> ServeConfig:
        """The part that the application is built from."""
        return ServeConfig.model_validate(self.model_dump(include=set(ServeConfig.model_fields)))


def run(command: ServeCommand) -> None:
    """Deploy and wait until interrupted."""
    from ray_jobs.index.manifest import read_live

    config = command.serve_config()
    storage = open_storage(config.store)
    indices = [read_live(storage, name) for name in config.index]
    if command.own_models:
        config = with_own_models(command, config, indices)
    config, key = with_key(config)
    if command.dry_run:
        if key is not None:
            print(f"the key of the tenant 'local', of which only the hash is below: {key}", file=sys.stderr)
        show(yaml.safe_dump(serve_yaml(command, config), sort_keys=False))
        return
    _serve(command, config, key)


def with_own_models(given: ServeConfig, config: ServeConfig, indices: Sequence[Manifest]) -> ServeConfig:
    """`config` with the models that Tandem carries where `given` names none and they suit the indices.

    A reranker that comes in this way orders what answers are made from; a search is reranked when it asks for it.
    """
    from ray_jobs.answer.defaults import default_reader, default_reranker

    changed: dict[str, Any] = {}
    reranker, reader = default_reranker(indices), default_reader(indices)
    if config.reranker is None and reranker is not None:
        changed["reranker"] = {"model": reranker}
        if "rerank" not in given.api.chat.model_fields_set and config.api.chat.k <= config.api.rerank.depth:
            changed["api"] = {**config.api.model_dump(), "chat": {**config.api.chat.model_dump(), "rerank": True}}
    generator = config.generator
    if generator.engine == "extractive" and "reader" not in given.generator.model_fields_set and reader is not None:
        # Under the name that requests know it by.
        changed["generator"] = {**generator.model_dump(), "reader": reader, "name": generator.public_name}
    return ServeConfig.model_validate({**config.model_dump(), **changed})


def with_key(config: ServeConfig) -> tuple[ServeConfig, str | None]:
    """The configuration with a tenant of its own where it has none, and that tenant's key; None if it needs none."""
    from serve.api.keys import new_key

    if config.api.open or config.api.tenants:
        return config, None
    key, digest = new_key()
    tenants = {"local": {"keys": [digest]}}
    api = type(config.api).model_validate({**config.api.model_dump(), "tenants": tenants})
    return config.model_copy(update={"api": api}), key


def serve_yaml(command: ServeCommand, config: ServeConfig) -> dict[str, Any]:
    """The Ray Serve config of this server, as `serve deploy` and a RayService take it."""
    tracing = tracing_config(command.traces)
    arguments = config.model_dump(mode="json", exclude_defaults=True)
    application = {
        "name": config.application,
        "route_prefix": "/",
        "import_path": IMPORT_PATH,
        "args": {**arguments, "application": config.application},
    }
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": command.host, "port": command.port},
        **({} if tracing is None else {"tracing_config": tracing}),
        "applications": [application],
    }


def _serve(command: ServeCommand, config: ServeConfig, key: str | None) -> None:
    if os.environ.get("RAY_ADDRESS"):
        _deploy(command, config, key)
        return
    if not is_free(command.port, command.host):
        raise UsageError(f"port={command.port}: cannot listen on {command.host}; if it is in use, give another --port")
    with tempfile.TemporaryDirectory(prefix="tandem-") as folder:
        prefer_fast(Path(folder))
        _deploy(command, config, key)


def _deploy(command: ServeCommand, config: ServeConfig, key: str | None) -> None:
    from ray import serve

    from ray_jobs import runtime
    from serve.app import build

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    with runtime.session():
        try:
            serve.start(
                http_options={"host": command.host, "port": command.port}, tracing_config=tracing_config(command.traces)
            )
            serve.run(build(config), name=config.application, route_prefix="/", blocking=False)
        except RuntimeError as error:
            serve.delete(config.application)
            raise TandemError(f"the server did not start: {_reason(error)}") from None
        url = f"http://{command.host}:{command.port}"
        if command.json_output:
            show(json.dumps({"url": url, "key": key}))
        else:
            show(_greeting(url, key, config))
        if command.detach:
            return
        try:
            wait_to_be_stopped()
        finally:
            # Drains; other applications on the same cluster go on.
            serve.delete(config.application)


def _greeting(url: str, key: str | None, config: ServeConfig) -> str:
    header = "" if key is None else f' -H "Authorization: Bearer {key}"'
    lines = [f"page   {url}/" + ("" if key is None else f"#key={key}"), f"API    {url}/v1"]
    if key is not None:
        lines.append(f"key    {key}")
    question = '{"query": "...", "k": 3}'
    lines += ["", f"  curl {url}/v1/search{header} -H 'Content-Type: application/json' -d '{question}'"]
    lines += ["", f"serving {', '.join(config.index)}; Ctrl-C stops it"]
    return "\n".join(lines)


def _reason(error: RuntimeError) -> str:
    """The last line of what a replica said when it failed."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def wait_to_be_stopped() -> None:
    """Return at SIGINT or SIGTERM."""
    # No event: a second signal while its lock is held would wait for ever. This queue may be used in a handler.
    asked: SimpleQueue[int] = SimpleQueue()
    previous = {
        number: signal.signal(number, lambda number, _: asked.put(number)) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        asked.get()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
