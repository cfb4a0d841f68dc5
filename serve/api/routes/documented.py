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


_RETRY_AFTER = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds after which to come again"}}
COVERAGE: dict[str, Any] = {
    "x-tandem-coverage": {
        "schema": {"type": "number"},
        "description": "share of the documents that was searched, 0 to 1; only when some are missing",
    }
}
"""Headers of a reply that was made from an index."""


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Error responses for the schema."""
    described: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorReply, "description": _MEANINGS[status]} for status in statuses
    }
    if 429 in described:
        described[429]["headers"] = _RETRY_AFTER
    return described


def guarded_router() -> APIRouter:
    """A router of calls that need a key. The key is checked by the gate, before a call is known."""
    return APIRouter(dependencies=[Security(_BEARER)], responses=errors(*_MEANINGS))
