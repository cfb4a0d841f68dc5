"""Errors of the online path, and the HTTP status of every error that a caller can meet.

    TandemError
    ├── UnauthorizedError   401: no key, or one that nobody has
    ├── ForbiddenError      403: a key that may not do this
    ├── DeadlineError       408: the time that the request had is over
    ├── TooLargeError       413: more than the server takes
    ├── BusyError           429: full, or the caller's limit is reached; says when to come again
    └── UnavailableError    503: too much of the index, or a deployment, does not answer

The errors of ray_jobs keep their meaning: UsageError 400, NotFoundError 404, all others 503.
"""

from __future__ import annotations

from ray_jobs.errors import NotFoundError, TandemError, UsageError


class ServingError(TandemError):
    """A request that could not be served."""

    status = 503


class UnauthorizedError(ServingError):
    """There is no key, or it is nobody's."""

    status = 401


class ForbiddenError(ServingError):
    """The key is known, but may not do this."""

    status = 403


class DeadlineError(ServingError):
    """The request's time is over."""

    status = 408


class TooLargeError(ServingError):
    """The request is larger than the server takes."""

    status = 413


class BusyError(ServingError):
    """The server or the caller's share of it is full; `retry_after_s` says when to come again."""

    status = 429

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnavailableError(ServingError):
    """What the request needs does not answer."""

    status = 503


def status_of(error: TandemError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, ServingError):
        return error.status
    if isinstance(error, NotFoundError):
        return 404
    return 400 if isinstance(error, UsageError) else 503
