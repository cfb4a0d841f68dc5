"""POST /v1/embeddings."""

from __future__ import annotations

import base64

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter
from starlette.responses import Response

from ray_jobs.errors import ModelError
from serve.api.catalogue import Catalogue, check_model
from serve.api.config import ApiConfig
from serve.api.errors import FieldError
from serve.api.limits import BatchCost
from serve.api.replies import json_response
from serve.api.request_context import CallerOf
from serve.api.routes.documented import guarded_router
from serve.api.shapes.embeddings import EmbeddingReply, EmbeddingsReply, EmbeddingsRequest, EmbeddingsUsage
from serve.backend import Backend
from serve.messages import EmbedCall


class EmbeddingsRoutes:
    """Embeds texts."""

    def __init__(self, backend: Backend, catalogue: Catalogue, cost: BatchCost, config: ApiConfig) -> None:
        self._backend = backend
        self._catalogue = catalogue
        self._cost = cost
        self._max_inputs = config.max_inputs

    def router(self) -> APIRouter:
        """The route."""
        router = guarded_router()
        router.add_api_route(
            "/v1/embeddings",
            self.create,
            methods=["POST"],
            response_model=EmbeddingsReply,
            summary="Embed texts",
        )
        return router

    async def create(self, body: EmbeddingsRequest, caller: CallerOf) -> Response:
        """The embedding of each text of `input`."""
        texts = body.texts
        if len(texts) > self._max_inputs:
            raise FieldError(f"input: there are {len(texts)} texts: expected at most {self._max_inputs}", "input")
        async with caller.deadline.bound("names were looked up"):
            embedder = (await self._catalogue.known()).embedder
        check_model(body.model, [embedder] if embedder else [])
        await self._cost.take(caller.tenant.name, len(texts))
        async with caller.deadline.bound("texts were embedded"):
            call = EmbedCall(texts, body.input_type or "document", caller.deadline.left())
            reply = await self._backend.embed(call)
        if len(reply.vectors) != len(texts):
            raise ModelError(f"embedder {reply.model}: expected {len(texts)} vectors, got {len(reply.vectors)}")
        dimension = reply.vectors.shape[1]
        if body.dimensions not in (None, dimension):
            message = f"dimensions={body.dimensions}: {reply.model} has {dimension}; expected that, or leave it out"
            raise FieldError(message, "dimensions")
        encode = _base64 if body.encoding_format == "base64" else _numbers
        return json_response(
            EmbeddingsReply(
                # Made without validation: it would look at every number.
                data=[
                    EmbeddingReply.model_construct(object="embedding", index=index, embedding=encode(vector))
                    for index, vector in enumerate(reply.vectors)
                ],
                model=reply.model,
                usage=EmbeddingsUsage(prompt_tokens=reply.tokens, total_tokens=reply.tokens),
            )
        )


def _numbers(vector: npt.NDArray[np.float32]) -> list[float]:
    numbers: list[float] = vector.tolist()
    return numbers


def _base64(vector: npt.NDArray[np.float32]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
