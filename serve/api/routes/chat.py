"""POST /v1/chat/completions."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from ray_jobs.answer.engine import Message, Request, Role, Sampling
from serve.api.answering import Answering, Asked
from serve.api.catalogue import Catalogue
from serve.api.completion import Completion
from serve.api.config import ApiConfig
from serve.api.errors import FieldError, OvertimeError
from serve.api.event_stream import EventStream
from serve.api.replies import coverage_headers, json_response
from serve.api.request_context import Caller, CallerOf
from serve.api.retrieval import Planner, Retrieval
from serve.api.routes.documented import COVERAGE, guarded_router
from serve.api.shapes.chat_reply import ChatCompletion
from serve.api.shapes.chat_request import ChatMessage, ChatRequest
from serve.api.shapes.shared import RetrievalFields
from serve.messages import Description

_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_ANSWER: dict[str, Any] = {
    "description": "the answer; with stream=true as events",
    "content": {"text/event-stream": {"schema": {"$ref": "#/components/schemas/ChatChunk"}}},
    "headers": COVERAGE,
}


class ChatRoutes:
    """Answers conversations."""

    def __init__(self, answering: Answering, catalogue: Catalogue, config: ApiConfig) -> None:
        self._answering = answering
        self._catalogue = catalogue
        self._planner = Planner(config.chat, config, prefix="retrieval.")
        self._max_question = config.max_question_chars

    def router(self) -> APIRouter:
        """The route."""
        router = guarded_router()
        router.add_api_route(
            "/v1/chat/completions",
            self.create,
            methods=["POST"],
            response_model=ChatCompletion,
            responses={200: _ANSWER},
            summary="Answer a conversation from an index, with citations",
        )
        return router

    async def create(self, body: ChatRequest, caller: CallerOf) -> Response:
        """Answer the last turn of `messages`. Fields beside OpenAI's: `index` and `retrieval`."""
        async with caller.deadline.bound("names were looked up"):
            asked = await self._asked(body, caller)
        async with AsyncExitStack() as held:
            running = await held.enter_async_context(self._answering.answer(asked, caller.deadline))
            completion = Completion(running, caller.deadline)
            coverage = None
            if running.found is not None:
                coverage = running.found.reply.coverage
                caller.context.degraded = running.found.degraded
            if body.stream:
                include_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
                chunks = completion.chunks(include_usage)
                return EventStream(chunks, held.pop_all(), caller, coverage_headers(coverage))
            async with caller.deadline.bound("the answer was generated", OvertimeError):
                whole = await completion.whole()
        return json_response(whole, coverage_headers(coverage))

    async def _asked(self, body: ChatRequest, caller: Caller) -> Asked:
        """The request, checked for all that can be known before any work."""
        description = await self._catalogue.generator(body.model)
        request = Request(
            model=body.model,
            messages=tuple(self._turn(position, turn) for position, turn in enumerate(body.messages)),
            sampling=_sampling(body),
        )
        if request.messages[-1].role != "user":
            raise FieldError(
                f"messages: the last turn is the {request.messages[-1].role}'s: expected the user's", "messages"
            )
        return Asked(request, await self._retrieval(body, description, caller), streamed=bool(body.stream))

    def _turn(self, position: int, turn: ChatMessage) -> Message:
        param = f"messages.{position}.content"
        if len(turn.text) > self._max_question:
            raise FieldError(f"{param}: expected at most {self._max_question} characters", param)
        if not turn.text.strip():
            raise FieldError(f"{param}: expected text that is not blank", param)
        return Message(_ROLES[turn.role], turn.text)

    async def _retrieval(self, body: ChatRequest, description: Description, caller: Caller) -> Retrieval | None:
        if body.retrieval is False:
            if description.needs_passages:
                message = f"retrieval=false: {body.model} only quotes, and needs something to quote from; leave it out"
                raise FieldError(message, "retrieval")
            return None
        fields = body.retrieval or RetrievalFields()
        if body.index is not None and fields.index not in (None, body.index):
            message = f"retrieval.index={fields.index}: index={body.index} says otherwise; name it once"
            raise FieldError(message, "retrieval.index")
        param = "index" if fields.index is None else "retrieval.index"
        index = await self._catalogue.index(fields.index or body.index, caller.tenant, param)
        return self._planner.plan(fields, index, caller.tenant, description.reranker)


def _sampling(body: ChatRequest) -> Sampling:
    limits = {body.max_tokens, body.max_completion_tokens} - {None}
    if len(limits) > 1:
        message = f"max_tokens={body.max_tokens}: max_completion_tokens={body.max_completion_tokens} says otherwise"
        raise FieldError(message, "max_tokens")
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    defaults = Sampling()
    return Sampling(
        max_tokens=next(iter(limits), None),
        temperature=defaults.temperature if body.temperature is None else body.temperature,
        top_p=defaults.top_p if body.top_p is None else body.top_p,
        stop=stop,
        seed=body.seed,
    )
