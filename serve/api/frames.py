"""Errors for the log, without their messages, which may quote a question or a document."""

from __future__ import annotations

import traceback


def frames_of(error: BaseException) -> str:
    """The types of an error and its causes, and the lines of code that they went through."""
    parts = []
    cause: BaseException | None = error
    while cause is not None:
        frames = "".join(traceback.format_tb(cause.__traceback__))
        parts.append(f"{type(cause).__module__}.{type(cause).__qualname__} at\n{frames}")
        cause = cause.__cause__ or cause.__context__
    return "caused by ".join(parts)
