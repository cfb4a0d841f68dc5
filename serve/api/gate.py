"""Who is it, and may they come now: asked before a byte of the body is read.

Guaranteed: nothing below /v1/ is reached without a tenant; each request there counts as one at least; no more of them
are under way than there are places, so that those that are let in are answered in good time, however many come.
"""

from __future__ import annotations

from contextlib import ExitStack

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.api.keys import KeyRing
from serve.api.limits import Limiter, Slots
from serve.api.request_context import context_of

_GUARDED = "/v1/"


class Gate:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, keys: KeyRing, slots: Slots, limiter: Limiter) -> None:
        self._app = app
        self._keys = keys
        self._slots = slots
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request pass; raises UnauthorizedError or BusyError."""
        # Below a prefix, a path begins with it.
        if scope["type"] == "http" and scope["path"].removeprefix(scope.get("root_path", "")).startswith(_GUARDED):
            context = context_of(scope)
            authorization = Headers(scope=scope).get("authorization")
            context.tenant = self._keys.tenant(None if authorization is None else authorization.encode("latin-1"))
            with ExitStack() as place:
                place.enter_context(self._slots.hold())

                async def leaving(message: Message) -> None:
                    # Whoever reads the end of a reply may come again at once.
                    if message["type"] == "http.response.body" and not message.get("more_body", False):
                        place.close()
                    await send(message)

                await self._limiter.take(context.tenant.name, 1)
                await self._app(scope, receive, leaving)
        else:
            await self._app(scope, receive, send)
