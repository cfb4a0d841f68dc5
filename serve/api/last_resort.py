"""Whatever goes wrong inside becomes an error object, and a defect is logged.

Guaranteed: no traceback and no message of an unforeseen error leaves the server; the log has where such an error was
raised, and of which type, but not its message, which may quote a question or a document.
"""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ray_jobs.errors import TandemError
from serve.api.errors import FieldError
from serve.api.failures import STATUSES, Failure, defect, failure_of
from serve.api.frames import frames_of
from serve.api.request_context import RequestContext, context_of
from serve.api.validation import first_problem

_log = logging.getLogger("tandem.serve.api")


def told(error: Exception, context: RequestContext) -> Failure:
    """What the caller is told of any error; logs it when it is a defect."""
    if isinstance(error, TandemError):
        failure = failure_of(error)
    else:
        failure = defect(context.request_id)
        _log.error("request %s: %s", context.request_id, frames_of(error))
    context.error = failure.code
    return failure


class LastResort:
    """Wraps the application, which may then raise any error from any layer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            failure = told(error, context_of(scope))
            # A response that has begun can only be cut off, which the server does when it is left incomplete.
            if not started:
                await failure.response()(scope, receive, send)


def answer_errors_of_the_framework(app: FastAPI) -> None:
    """Have `app` answer with error objects to what it refuses itself: routes, methods, bodies."""
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {
        400: "the body cannot be read: its JSON is nested too deeply, or has a number with too many digits",
        404: "there is nothing at this address; /openapi.json lists what there is",
        405: f"method {request.method} does nothing here; /openapi.json lists what does",
    }
    status = error.status_code if error.status_code in STATUSES else 400
    headers = {**(error.headers or {}), "x-should-retry": "false"}
    failure = Failure(status, messages.get(status, error.detail), headers=headers)
    context_of(request.scope).error = failure.code
    return failure.response()


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    message, param = first_problem(error.errors())
    return told(FieldError(message, param), context_of(request.scope)).response()
