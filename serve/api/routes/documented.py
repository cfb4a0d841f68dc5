"""What the schema says of every call below /v1/."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Security
from fastapi.security import HTTPBearer

from serve.api.shapes.shared import ErrorReply

_BEARER = HTTPBearer(auto_error=False, description="a key of a tenant; not needed where the server is open")

_MEANINGS = {
    400: "a field is wrong; `param` names it",
    401: "no key, or nobody's",
    403: "the key may not do this",
    404: "what a field names does not exist",
    408: "the time of the request is over",
    413: "the body is too large",
    429: "full, or the caller's limit is reached; Retry-After says when to come again",
    500: "a defect of the server",
    503: "too much of what is needed does not answer",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Error responses for the schema."""
    return {status: {"model": ErrorReply, "description": _MEANINGS[status]} for status in statuses}


def guarded_router() -> APIRouter:
    """A router of calls that need a key. The key is checked by the gate, before a call is known."""
    return APIRouter(dependencies=[Security(_BEARER)], responses=errors(*_MEANINGS))
