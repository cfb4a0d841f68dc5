"""Server-sent events, sent as fast as the client reads and no faster.

Guaranteed: the next event is made only when the server has taken the one before, which it does while the client reads;
the stream ends with `data: [DONE]`, after an event with an error object if something went wrong or the time was over;
what it was made from is closed when the stream ends, however it ends. Not guaranteed: that a client which does not read
sees the end; the connection is then cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing, suppress

from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serve.api.errors import OvertimeError
from serve.api.last_resort import told
from serve.api.request_context import Caller

_LAST_WORDS_S = 1.0
_DONE = b"[DONE]"


class EventStream(Response):
    """A response of events, each an object in JSON without the fields that were not set."""

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[BaseModel, None],
        made_from: AsyncExitStack,
        caller: Caller,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no", **headers})
        del self.headers["content-length"]
        self._events = events
        self._made_from = made_from
        self._caller = caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        last_words = _event(_DONE)
        async with self._made_from:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                async with self._caller.deadline.bound("the answer was streamed", OvertimeError):
                    await self._send_all(send)
            except Exception as error:
                last_words = _event(told(error, self._caller.context).to_json()) + last_words
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                await send({"type": "http.response.body", "body": last_words, "more_body": False})

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._events) as events:
            async for event in events:
                data = event.model_dump_json(exclude_unset=True).encode()
                await send({"type": "http.response.body", "body": _event(data), "more_body": True})
                # Neither making nor sending an event need ever wait, and others must have their turn.
                await asyncio.sleep(0)


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"
