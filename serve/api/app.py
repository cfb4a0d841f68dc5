"""The application: routes over a backend, inside the layers that every request passes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from serve.api.access_log import AccessLog
from serve.api.answering import Answering
from serve.api.catalogue import Catalogue
from serve.api.config import ApiConfig
from serve.api.connection import Connection
from serve.api.gate import Gate
from serve.api.keys import KeyRing
from serve.api.last_resort import LastResort, answer_errors_of_the_framework
from serve.api.limits import BatchCost, Limiter, Slots, TokenBuckets
from serve.api.page import mount_page
from serve.api.retrieving import Retrieving
from serve.api.routes.chat import ChatRoutes
from serve.api.routes.embeddings import EmbeddingsRoutes
from serve.api.routes.health import HealthRoutes
from serve.api.routes.listings import ListingRoutes
from serve.api.routes.rerank import RerankRoutes
from serve.api.routes.search import SearchRoutes
from serve.api.schema import describe
from serve.backend import Backend


def make_app(backend: Backend, config: ApiConfig, limiter: Limiter | None = None) -> FastAPI:
    """The API over `backend`. Without a `limiter` each process counts the requests of tenants for itself."""
    limiter = TokenBuckets(config.tenants) if limiter is None else limiter
    catalogue = Catalogue(backend, config.description_s)
    app = _bare_app(catalogue)
    _add_routes(app, backend, catalogue, limiter, config)
    mount_page(app)
    describe(app)
    answer_errors_of_the_framework(app)
    # The innermost layer first.
    app.add_middleware(Connection, max_body_bytes=config.max_body_bytes)
    app.add_middleware(Gate, keys=KeyRing(config), slots=Slots(config.requests, "requests"), limiter=limiter)
    app.add_middleware(LastResort)
    app.add_middleware(AccessLog, longest_s=config.deadline_s)
    return app


def _bare_app(catalogue: Catalogue) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await catalogue.close()

    # Without FastAPI's pages, whose scripts come from elsewhere.
    return FastAPI(
        title="Tandem",
        version=version("tandem"),
        description="Search, rerank, embed and answer with citations. OpenAI's clients work against it as they are.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )


def _add_routes(app: FastAPI, backend: Backend, catalogue: Catalogue, limiter: Limiter, config: ApiConfig) -> None:
    retrieving = Retrieving(backend, config.rerank)
    answering = Answering(backend, retrieving, Slots(config.generations, "answers"))
    cost = BatchCost(limiter, config.texts_per_request)
    for routes in (
        ChatRoutes(answering, catalogue, config),
        SearchRoutes(retrieving, catalogue, config),
        RerankRoutes(backend, catalogue, cost, config),
        EmbeddingsRoutes(backend, catalogue, cost, config),
        ListingRoutes(catalogue),
        HealthRoutes(catalogue),
    ):
        app.include_router(routes.router())
