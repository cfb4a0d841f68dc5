"""POST /v1/rerank."""

from __future__ import annotations

import time
from uuid import uuid4

from fastapi import APIRouter
from starlette.responses import Response

from ray_jobs.errors import NotFoundError
from serve.api.catalogue import Catalogue, check_model
from serve.api.config import ApiConfig
from serve.api.errors import FieldError, UnknownError
from serve.api.limits import BatchCost
from serve.api.replies import json_response
from serve.api.request_context import Caller, CallerOf
from serve.api.retrieving import check_scores
from serve.api.routes.documented import guarded_router
from serve.api.shapes.rerank import (
    RerankedDocument,
    RerankMeta,
    RerankRequest,
    RerankResult,
    RerankResults,
    RerankTokens,
)
from serve.api.shapes.shared import milliseconds
from serve.backend import Backend
from serve.messages import RerankCall, RerankReply


class RerankRoutes:
    """Orders documents by a query."""

    def __init__(self, backend: Backend, catalogue: Catalogue, cost: BatchCost, config: ApiConfig) -> None:
        self._backend = backend
        self._catalogue = catalogue
        self._cost = cost
        self._config = config

    def router(self) -> APIRouter:
        """The route."""
        router = guarded_router()
        router.add_api_route(
            "/v1/rerank",
            self.create,
            methods=["POST"],
            response_model=RerankResults,
            summary="Order documents by how well they answer a query",
        )
        return router

    async def create(self, body: RerankRequest, caller: CallerOf) -> Response:
        """Score `documents` against `query`, best first."""
        self._check(body)
        async with caller.deadline.bound("names were looked up"):
            reranker = (await self._catalogue.known()).reranker
        if reranker is not None:
            check_model(body.model, [reranker])
        await self._cost.take(caller.tenant.name, len(body.documents))
        started = time.perf_counter()
        reply = await self._scores(body, caller)
        timings = {"rerank": time.perf_counter() - started, "total": caller.deadline.elapsed()}
        return json_response(
            RerankResults(
                id=f"rerank-{uuid4().hex}",
                model=reply.model,
                results=_results(body, reply),
                meta=RerankMeta(tokens=RerankTokens(input_tokens=reply.tokens)),
                timings=milliseconds(timings),
            )
        )

    async def _scores(self, body: RerankRequest, caller: Caller) -> RerankReply:
        try:
            async with caller.deadline.bound("documents were scored"):
                reply = await self._backend.rerank(RerankCall(body.query, body.texts, caller.deadline.left()))
        except NotFoundError:
            raise UnknownError("no reranker is deployed here") from None
        check_scores(reply, len(body.documents))
        return reply

    def _check(self, body: RerankRequest) -> None:
        if len(body.query) > self._config.max_question_chars:
            raise FieldError(f"query: expected at most {self._config.max_question_chars} characters", "query")
        if len(body.documents) > self._config.max_documents:
            message = f"documents: there are {len(body.documents)}: expected at most {self._config.max_documents}"
            raise FieldError(message, "documents")


def _results(body: RerankRequest, reply: RerankReply) -> list[RerankResult]:
    order = sorted(range(len(reply.scores)), key=lambda place: -reply.scores[place])
    texts = body.texts
    return [
        RerankResult(
            index=place,
            relevance_score=reply.scores[place],
            document=RerankedDocument(text=texts[place]) if body.return_documents else None,
        )
        for place in order[: body.top_n]
    ]
