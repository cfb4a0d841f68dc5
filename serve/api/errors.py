"""Errors that the API finds itself, beside those of serve.errors.

UsageError
└── FieldError        400: a field of the request, which it names
NotFoundError
└── UnknownError      404: a name in a field of the request, which it names
DeadlineError
└── OvertimeError     408: making the answer took the rest of the time, and would again
"""

from __future__ import annotations

from ray_jobs.errors import NotFoundError, UsageError
from serve.errors import DeadlineError


class FieldError(UsageError):
    """A field of the request is wrong; `param` is its name, such as "retrieval.k"."""

    def __init__(self, message: str, param: str | None) -> None:
        super().__init__(message)
        self.param = param


class UnknownError(NotFoundError):
    """What a field of the request names does not exist; `param` is the field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class OvertimeError(DeadlineError):
    """The answer was not finished in time: asking again would not help."""
