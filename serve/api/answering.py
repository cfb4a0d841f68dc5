"""From a conversation to an answer: admit, condense, retrieve, generate.

Guaranteed: a place for the answer is taken before anything else is done, and given back when the answer is closed,
however it ends; every hop is given what is left of the request's time. Not guaranteed: that a place here is one at the
generator, which may still be busy.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from ray_jobs.answer.asking import to_passages
from ray_jobs.answer.engine import Request
from serve.api.deadline import Deadline
from serve.api.limits import Slots
from serve.api.retrieval import Retrieval
from serve.api.retrieving import Found, Retrieving
from serve.api.running_answer import RunningAnswer
from serve.backend import Backend
from serve.messages import CondenseCall, GenerateCall


@dataclass(frozen=True)
class Asked:
    """A conversation to answer; its last turn is the user's."""

    request: Request
    retrieval: Retrieval | None  # None: from no document at all
    streamed: bool = False

    @property
    def question(self) -> str:
        """The last turn."""
        return self.request.messages[-1].content

    @property
    def needs_condensing(self) -> bool:
        """Whether the question may lean on turns before it."""
        return sum(message.role == "user" for message in self.request.messages) > 1


class Answering:
    """Answers over a backend."""

    def __init__(self, backend: Backend, retrieving: Retrieving, slots: Slots) -> None:
        self._backend = backend
        self._retrieving = retrieving
        self._slots = slots

    @asynccontextmanager
    async def answer(self, asked: Asked, deadline: Deadline) -> AsyncIterator[RunningAnswer]:
        """An answer that is being generated, until the block ends.

        Raises BusyError before anything is done, and whatever the stages raise.
        """
        with self._slots.hold():
            timings: dict[str, float] = {}
            question, found = asked.question, None
            if asked.retrieval is not None:
                question = await self._condensed(asked, deadline, timings)
                found = await self._retrieving.find(question, asked.retrieval, deadline, for_reader=True)
                timings |= found.timings
            call = _generate_call(asked, question, found, deadline)
            events = self._backend.generate(call)
            async with RunningAnswer(events, call, found, timings, deadline) as running:
                yield running

    async def _condensed(self, asked: Asked, deadline: Deadline, timings: dict[str, float]) -> str:
        if not asked.needs_condensing:
            return asked.question
        started = time.perf_counter()
        async with deadline.bound("the conversation was condensed"):
            call = CondenseCall(asked.request.messages, asked.request.model, deadline.left())
            condensed = await self._backend.condense(call)
        timings["condense"] = time.perf_counter() - started
        return condensed.strip() or asked.question


def _generate_call(asked: Asked, question: str, found: Found | None, deadline: Deadline) -> GenerateCall:
    whole = not asked.streamed
    if found is None:
        return GenerateCall(replace(asked.request, closed_book=True), question, (), deadline.left(), whole)
    request = replace(asked.request, statistics=found.reply.statistics, language=found.reply.language)
    return GenerateCall(request, question, tuple(to_passages(found.hits)), deadline.left(), whole)
