"""The outermost layer: gives each request its id, and the access log its line.

Guaranteed: every response carries x-request-id; every request has one line in the logger `tandem.serve.access`, an
object in JSON, also when it fails or its client leaves (status 499). No line has a key, a question or a text of a
document. Not guaranteed: an id or a line for what the server refuses before it is a request.
"""

from __future__ import annotations

import json
import logging
import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.api.request_context import RequestContext, begin

_CLIENT_LEFT = 499
_log = logging.getLogger("tandem.serve.access")


class AccessLog:
    """Wraps the application; `longest_s` is the time that a request has."""

    def __init__(self, app: ASGIApp, longest_s: float) -> None:
        self._app = app
        self._longest_s = longest_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = begin(scope, self._longest_s)
        status = 0

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = context.request_id
                headers["x-content-type-options"] = "nosniff"
            await send(message)

        try:
            await self._app(scope, receive, named)
        finally:
            # Without a status, somebody outside has given up the request.
            _log.info(_line(scope, context, _CLIENT_LEFT if context.gone or not status else status))


def _line(scope: Scope, context: RequestContext, status: int) -> str:
    """One request; by its route's template, since a path may hold anything."""
    return json.dumps(
        {
            "request_id": context.request_id,
            "tenant": None if context.tenant is None else context.tenant.name,
            "method": scope["method"],
            "route": getattr(scope.get("route"), "path", None),
            "status": status,
            "ms": round((time.monotonic() - context.started) * 1000, 1),
            "degraded": list(context.degraded),
            "error": context.error,
        }
    )
