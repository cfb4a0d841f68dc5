"""GET /v1/models, /v1/models/{id}, /v1/indexes and /v1/status."""

from __future__ import annotations

import time
from typing import Literal

from fastapi import APIRouter
from starlette.responses import Response

from serve.api.catalogue import Catalogue, visible
from serve.api.errors import UnknownError
from serve.api.replies import json_response
from serve.api.request_context import Caller, CallerOf
from serve.api.routes.documented import guarded_router
from serve.api.shapes.listings import (
    DeploymentReply,
    IndexesReply,
    IndexReply,
    IndexStatusReply,
    ModelReply,
    ModelsReply,
    StatusReply,
)
from serve.api.shapes.shared import CoverageReply
from serve.messages import Description


class ListingRoutes:
    """Says what is served, and how it is."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._created = int(time.time())

    def router(self) -> APIRouter:
        """The routes."""
        router = guarded_router()
        router.add_api_route("/v1/models", self.models, response_model=ModelsReply, summary="List models")
        router.add_api_route("/v1/models/{model:path}", self.model, response_model=ModelReply, summary="Show a model")
        router.add_api_route("/v1/indexes", self.indexes, response_model=IndexesReply, summary="List indices")
        router.add_api_route("/v1/status", self.status, response_model=StatusReply, summary="Show how the server is")
        return router

    async def models(self, caller: CallerOf) -> Response:
        """Generators, the embedder and the reranker."""
        return json_response(ModelsReply(data=self._models(await self._latest(caller))))

    async def model(self, model: str, caller: CallerOf) -> Response:
        """One of the models."""
        for known in self._models(await self._latest(caller)):
            if known.id == model:
                return json_response(known)
        raise UnknownError(f"model={model}: there is no such model; /v1/models lists them", "model")

    async def indexes(self, caller: CallerOf) -> Response:
        """The indices that the caller may see, the default first."""
        whole = caller.tenant.where is None
        return json_response(
            IndexesReply(
                data=[
                    IndexReply(
                        id=index.name,
                        snapshot=index.snapshot,
                        documents=index.documents if whole else None,
                        chunks=index.chunks if whole else None,
                        embedder=index.embedder,
                        metadata=index.metadata,
                        default=place == 0,
                    )
                    for place, index in enumerate(visible(await self._latest(caller), caller.tenant))
                ]
            )
        )

    async def status(self, caller: CallerOf) -> Response:
        """Deployments, and what is live, loading and missing of the indices that the caller may see."""
        description = await self._now(caller)
        return json_response(
            StatusReply(
                deployments=[
                    DeploymentReply(name=one.name, status=one.status, replicas=one.replicas, wanted=one.wanted)
                    for one in description.deployments
                ],
                indexes=[
                    IndexStatusReply(
                        id=index.name,
                        snapshot=index.snapshot,
                        loading=index.loading,
                        coverage=CoverageReply.of(index.coverage),
                    )
                    for index in visible(description, caller.tenant)
                ],
            )
        )

    async def _latest(self, caller: Caller) -> Description:
        async with caller.deadline.bound("the deployments were asked"):
            return await self._catalogue.latest()

    async def _now(self, caller: Caller) -> Description:
        async with caller.deadline.bound("the deployments were asked"):
            return await self._catalogue.now()

    def _models(self, description: Description) -> list[ModelReply]:
        named: list[tuple[str, Literal["generator", "embedder", "reranker"]]] = [
            *((name, "generator") for name in description.generators),
            (description.embedder, "embedder"),
            (description.reranker or "", "reranker"),
        ]
        return [ModelReply(id=name, created=self._created, kind=kind) for name, kind in named if name]
