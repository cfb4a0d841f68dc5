"""A file as its filesystem tells it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Listed:
    """A file; `relative` is the path below what was listed, "" for a file that was named itself."""

    uri: str
    relative: str
    size: int  # bytes
    modified: str  # another one when the file has changed
