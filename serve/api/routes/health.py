"""GET /livez and /readyz, for those who watch the server; no key is needed."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from serve.api.catalogue import Catalogue
from serve.api.replies import json_response
from serve.api.request_context import context_of
from serve.api.routes.documented import errors
from serve.api.shapes.listings import LiveReply, ReadyReply


class HealthRoutes:
    """Says whether the process lives, and whether all of every index answers."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter()
        router.add_api_route("/livez", self.live, response_model=LiveReply, summary="Whether the process lives")
        router.add_api_route(
            "/readyz",
            self.ready,
            response_model=ReadyReply,
            responses={503: {"model": ReadyReply, "description": "something is missing"}, **errors(408)},
            summary="Whether all of every index answers",
        )
        return router

    async def live(self) -> Response:
        """Whoever answers, lives."""
        return json_response(LiveReply())

    async def ready(self, request: Request) -> Response:
        """How much is there, in numbers: names are for those who have a key."""
        async with context_of(request.scope).deadline().bound("the deployments were asked"):
            description = await self._catalogue.now()
        indexes = description.indexes
        whole = [index for index in indexes if index.snapshot is not None and not index.coverage.degraded]
        ready = 0 < len(whole) == len(indexes)
        reply = ReadyReply(
            status="ok" if ready else "not ready",
            indexes=len(indexes),
            indexes_ready=len(whole),
            partitions_missing=sum(len(index.coverage.missing) for index in indexes),
        )
        return json_response(reply, status=200 if ready else 503)
