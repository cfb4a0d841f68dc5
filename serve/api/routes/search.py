"""POST /v1/search."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from ray_jobs.index.hits import Hit
from serve.api.catalogue import Catalogue
from serve.api.config import ApiConfig
from serve.api.errors import FieldError
from serve.api.replies import coverage_headers, json_response
from serve.api.request_context import CallerOf
from serve.api.retrieval import Planner
from serve.api.retrieving import Retrieving
from serve.api.routes.documented import COVERAGE, guarded_router
from serve.api.shapes.search import HitReply, SearchRequest, SearchResults
from serve.api.shapes.shared import CoverageReply, milliseconds


class SearchRoutes:
    """Searches."""

    def __init__(self, retrieving: Retrieving, catalogue: Catalogue, config: ApiConfig) -> None:
        self._retrieving = retrieving
        self._catalogue = catalogue
        self._planner = Planner(config.search, config)
        self._max_question = config.max_question_chars

    def router(self) -> APIRouter:
        """The route."""
        router = guarded_router()
        router.add_api_route(
            "/v1/search",
            self.create,
            methods=["POST"],
            response_model=SearchResults,
            responses={200: {"headers": COVERAGE, "description": "the hits"}},
            summary="Search an index by meaning, by words or both",
        )
        return router

    async def create(self, body: SearchRequest, caller: CallerOf) -> Response:
        """The best hits for `query`."""
        if len(body.query) > self._max_question:
            raise FieldError(f"query: expected at most {self._max_question} characters", "query")
        async with caller.deadline.bound("names were looked up"):
            index = await self._catalogue.index(body.index, caller.tenant)
            description = await self._catalogue.known()
        wanted = self._planner.plan(body, index, caller.tenant, description.reranker, body.nprobe)
        found = await self._retrieving.find(body.query, wanted, caller.deadline)
        caller.context.degraded = found.degraded
        results = SearchResults(
            index=found.reply.index,
            snapshot=found.reply.snapshot,
            hits=[_reply(hit) for hit in found.hits],
            coverage=CoverageReply.of(found.reply.coverage),
            degraded=list(found.degraded),
            timings=milliseconds({**found.timings, "total": caller.deadline.elapsed()}),
        )
        return json_response(results, coverage_headers(found.reply.coverage))


def _reply(hit: Hit) -> HitReply:
    return HitReply(
        rank=hit.rank,
        doc_id=hit.doc_id,
        chunk_id=hit.chunk_id,
        score=hit.score,
        scores=dict(hit.scores),
        text=hit.text,
        title=hit.title,
        heading=hit.heading,
        page=hit.page,
        source=hit.source,
        start=hit.start,
        end=hit.end,
        metadata=dict(hit.metadata),
    )
