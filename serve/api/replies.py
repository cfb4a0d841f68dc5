"""Replies as responses."""

from __future__ import annotations

from pydantic import BaseModel
from starlette.responses import Response

from serve.messages import Coverage


def json_response(reply: BaseModel, headers: dict[str, str] | None = None, status: int = 200) -> Response:
    """A reply in JSON; what has no value is null."""
    return Response(reply.model_dump_json().encode(), status, headers, "application/json")


def coverage_headers(coverage: Coverage | None) -> dict[str, str]:
    """Tells those who read no body that something is missing."""
    if coverage is None or not coverage.degraded:
        return {}
    return {"x-tandem-coverage": f"{coverage.documents:.4g}"}
