"""Ray Serve deployments in the shape of Tandem's search that do nothing: what the hops alone cost.

    python tests/bench/noop_chain.py PORT PARTITIONS

Ingress -> retriever -> all partitions (candidates) -> all partitions (rows), with the resources of the laptop profile.
"""

import asyncio
import logging
import signal
import sys
from typing import Any

import ray
from fastapi import FastAPI, Request
from ray import serve

from serve.scaling import Name, Scaling, options, resolve

api = FastAPI()


class Partition:
    """Answers with nothing."""

    async def step(self) -> None:
        """One question to a partition."""


class Retriever:
    """Asks every partition twice."""

    def __init__(self, partitions: list[Any]) -> None:
        self._partitions = partitions

    async def search(self) -> None:
        """Two fan-outs, one after the other."""
        for _ in range(2):
            await asyncio.gather(*(partition.step.remote() for partition in self._partitions))


@serve.ingress(api)
class Gateway:
    """The ingress."""

    def __init__(self, retriever: Any) -> None:
        self._retriever = retriever

    @api.get("/ready")
    async def ready(self) -> dict[str, str]:
        """Whether the chain is up."""
        await self._retriever.search.remote()
        return {"status": "ok"}

    @api.post("/v1/search")
    async def search(self, request: Request) -> dict[str, Any]:
        """Pass through the chain."""
        await request.json()
        await self._retriever.search.remote()
        return {"hits": []}


def deployed(kind: Any, name: Name, title: str) -> Any:
    """A deployment with the resources that Tandem's has."""
    made = kind if isinstance(kind, serve.Deployment) else serve.deployment(kind)
    return made.options(name=title, **options(resolve("laptop", name, Scaling())))


def main() -> int:
    """Serve until SIGTERM."""
    port, count = int(sys.argv[1]), int(sys.argv[2])
    ray.init(address="local", include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    partitions = [deployed(Partition, "partition", f"Partition-{number}").bind() for number in range(count)]
    retriever = deployed(Retriever, "retriever", "Retriever").bind(partitions)
    serve.run(deployed(Gateway, "gateway", "Gateway").bind(retriever), name="noop", route_prefix="/")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
