"""An answer while it is generated: pulled event by event, its citations checked, closed when nobody reads on.

Guaranteed: every citation that is passed on cuts its quote exactly from the passage of its number; an answer is called
grounded only if, besides, its markers and citations agree. Closing stops the generation, whether or not a single event
was read. Not guaranteed: that a quote supports the sentence before its marker.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from types import TracebackType
from typing import Self

from ray_jobs.answer.grounding import problems
from ray_jobs.answer.protocol import Answer, AnswerEvent, Citation, Cited, Final, TextDelta
from ray_jobs.errors import ModelError
from serve.api.deadline import Deadline
from serve.api.errors import OvertimeError
from serve.api.retrieving import Found
from serve.errors import DeadlineError
from serve.messages import GenerateCall

_FAILS_EARLY_S = 0.2
_log = logging.getLogger("tandem.serve.api")


class RunningAnswer:
    """An answer in the making: begun when it is made, closed at the end of its `async with` block."""

    def __init__(
        self,
        events: AsyncGenerator[AnswerEvent, None],
        call: GenerateCall,
        found: Found | None,
        timings: dict[str, float],
        deadline: Deadline,
    ) -> None:
        self.call = call
        self.found = found  # None: closed book
        self.timings = timings  # seconds a stage, of those that are over
        self._events = events
        self._deadline = deadline
        self._started = time.perf_counter()
        self._first: asyncio.Task[AnswerEvent | None] = asyncio.create_task(self._next())

    async def __aenter__(self) -> Self:
        """Wait a little for the first event, so that what fails at once raises here and can still be a status."""
        try:
            await asyncio.wait({self._first}, timeout=min(_FAILS_EARLY_S, self._deadline.left()))
            if self._first.done():
                self._first.result()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def events(self) -> AsyncIterator[AnswerEvent]:
        """What is generated, the checked answer last; to be read once."""
        event = await self._first
        while event is not None:
            if isinstance(event, Final):
                yield Final(self._checked(event.answer))
                return
            if isinstance(event, TextDelta):
                self.timings.setdefault("first_token", self._deadline.elapsed())
            if not isinstance(event, Cited) or self._holds(event.citation):
                yield event
            event = await self._next()
        raise ModelError("the generator ended without an answer; try again, or use another one")

    async def whole(self) -> Answer:
        """The checked answer, for those who do not stream."""
        events = [event async for event in self.events()]
        final = events[-1]
        assert isinstance(final, Final)
        return final.answer

    async def _next(self) -> AnswerEvent | None:
        try:
            return await anext(self._events, None)
        except DeadlineError as error:
            raise OvertimeError(str(error)) from None

    async def _close(self) -> None:
        # A generator cannot be closed while its first event is awaited.
        self._first.cancel()
        await asyncio.gather(self._first, return_exceptions=True)
        await self._events.aclose()

    def _holds(self, citation: Citation) -> bool:
        return not problems(f"[{citation.number}]", [citation], self.call.passages)

    def _checked(self, answer: Answer) -> Answer:
        """The answer without the citations that do not hold, grounded only if there are none of these."""
        # A stage that both measured counts from the start of the request, not of the generator.
        self.timings = {**answer.timings, **self.timings, "generate": time.perf_counter() - self._started}
        if self.call.whole:
            self.timings.pop("first_token", None)
        wrong = problems(answer.text, answer.citations, self.call.passages)
        if wrong:
            _log.warning("%d problems with the citations of an answer of %s", len(wrong), self.call.request.model)
        citations = tuple(citation for citation in answer.citations if self._holds(citation))
        return replace(answer, citations=citations, grounded=answer.grounded and not wrong)
