"""The time that a request has, handed on from hop to hop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

from serve.errors import DeadlineError


@dataclass(frozen=True)
class Deadline:
    """A moment on the monotonic clock, and how much time there was until then."""

    at: float
    seconds: float

    @classmethod
    def after(cls, seconds: float, start: float) -> Self:
        """The deadline `seconds` after `start`."""
        return cls(start + seconds, seconds)

    def left(self) -> float:
        """What is left, in seconds, 0 at least."""
        return max(0.0, self.at - time.monotonic())

    def elapsed(self) -> float:
        """What is spent, in seconds."""
        return time.monotonic() - (self.at - self.seconds)

    @asynccontextmanager
    async def bound(self, doing: str, error: type[DeadlineError] = DeadlineError) -> AsyncIterator[None]:
        """Cancel the block when the time is over, and raise `error`, which says what was being done."""
        try:
            async with asyncio.timeout(self.left()) as timeout:
                yield
        except TimeoutError:
            if not timeout.expired():
                raise
            raise error(
                f"the {self.seconds:g} s of the request were over while {doing}; ask for less, or give it more time"
            ) from None
