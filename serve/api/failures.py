"""Every error as the caller sees it: a status, headers and an OpenAI error object.

    {"error": {"message", "type", "param", "code"}}

`x-should-retry: false` goes with what would fail again in the same way, since clients of OpenAI's repeat 408, 409, 429
and 5xx by themselves.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

from starlette.responses import Response

from ray_jobs.errors import CorruptError, ModelError, TandemError
from serve.api.errors import FieldError, OvertimeError, UnknownError
from serve.api.one_line import on_one_line
from serve.errors import BusyError, status_of

_TYPES = {
    400: ("invalid_request_error", "invalid_value"),
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", "forbidden"),
    404: ("not_found_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    408: ("timeout_error", "deadline_exceeded"),
    413: ("invalid_request_error", "body_too_large"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    500: ("server_error", "internal_error"),
    503: ("server_error", "unavailable"),
}
STATUSES = tuple(_TYPES)
"""Every status of an error."""

_FINAL = {400, 401, 403, 404, 405, 413}
_FINAL_ERRORS = (OvertimeError, ModelError, CorruptError)


@dataclass(frozen=True)
class Failure:
    """One error, ready to be sent."""

    status: int
    message: str
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def code(self) -> str:
        """What went wrong, as one word for a program."""
        return self._described()[1]

    def to_dict(self) -> dict[str, object]:
        """The error object."""
        kind, code = self._described()
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": code}}

    def to_json(self) -> bytes:
        """The error object in JSON; ASCII, since a message may show any text that was sent."""
        return json.dumps(self.to_dict()).encode()

    def response(self) -> Response:
        """The error as a response of its own."""
        return Response(self.to_json(), self.status, self.headers, "application/json")

    def _described(self) -> tuple[str, str]:
        return _TYPES[self.status]


def failure_of(error: TandemError) -> Failure:
    """What the caller is told of an error that may be told."""
    status = status_of(error)
    headers = {}
    if status in _FINAL or isinstance(error, _FINAL_ERRORS):
        headers["x-should-retry"] = "false"
    if isinstance(error, BusyError):
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
        headers["retry-after-ms"] = str(math.ceil(error.retry_after_s * 1000))
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    param = error.param if isinstance(error, FieldError | UnknownError) else None
    return Failure(status, on_one_line(str(error)), param, headers)


def defect(request_id: str) -> Failure:
    """What the caller is told of an error that is ours."""
    return Failure(500, f"something is wrong in the server; its log knows more, of request {request_id}")
