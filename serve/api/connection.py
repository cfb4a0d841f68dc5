"""The client's side of a request: its body, read whole within a limit, and its leaving.

Guaranteed: the application sees no body that is not UTF-8; no more than the limit of a body is kept, whether or not its
length was announced; when the client leaves before the response is complete, the work for it is cancelled at once,
whatever it is waiting for. Not guaranteed: that a client which sends more than the limit reads why it was refused; that
is up to the server, which has to read on.
"""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.api.errors import FieldError
from serve.api.request_context import context_of
from serve.errors import TooLargeError


class Connection:
    """Wraps the application, which finds the body complete and need not look out for the client's leaving."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; raises TooLargeError, DeadlineError or FieldError."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = context_of(scope)
        async with context.deadline().bound("its body was read"):
            body = await self._body(scope, receive)
        if body is None:
            context.gone = True
            return
        _check_encoding(body)
        complete = False

        async def watched(message: Message) -> None:
            nonlocal complete
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                complete = True
            await send(message)

        work = asyncio.ensure_future(self._app(scope, _replayed(body), watched))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({work, leaving}, return_when=asyncio.FIRST_COMPLETED)
            # A server says "disconnected" after a complete response as well.
            if not work.done() and not complete:
                context.gone = True
                work.cancel()
            await asyncio.wait({work})
        finally:
            work.cancel()
            leaving.cancel()
            await asyncio.gather(work, leaving, return_exceptions=True)
        if not context.gone:
            work.result()

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None when the client has left."""
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > self._max_bytes:
            raise self._too_large()
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > self._max_bytes:
                raise self._too_large()
            if not message.get("more_body", False):
                return b"".join(pieces)

    def _too_large(self) -> TooLargeError:
        return TooLargeError(f"the body has more than {self._max_bytes:,} bytes: send less in one request")


def _check_encoding(body: bytes) -> None:
    """Raise FieldError unless `body` may be JSON in UTF-8; Python's parser would take UTF-16 and UTF-32 as well."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise FieldError(
            f"the body is not UTF-8 from byte {error.start + 1} on: expected JSON in UTF-8", None
        ) from None
    if b"\0" in body:
        raise FieldError("the body has a byte 0, which JSON in UTF-8 has nowhere: send it in UTF-8", None)


def _replayed(body: bytes) -> Receive:
    """The body as one message, and nothing after it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if not messages:
            await asyncio.get_running_loop().create_future()
        return messages.pop()

    return receive


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
