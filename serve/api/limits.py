"""How often a tenant may come, and how many requests and answers may be under way.

`TokenBuckets` guarantees its limits within one process only; a limiter that all gateways share has the same protocol.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from serve.api.config import TenantConfig
from serve.errors import BusyError

_RETRY_S = 1.0


class Limiter(Protocol):
    """Counts the requests of tenants."""

    async def take(self, tenant: str, cost: float) -> None:
        """Count `cost` requests; raises BusyError, with the time after which they would fit, and counts nothing."""
        ...


@dataclass
class _Bucket:
    per_s: float
    burst: float
    tokens: float
    filled: float


class TokenBuckets:
    """A bucket of tokens for each tenant that has a limit; `burst` are in it, and new ones come at a steady rate."""

    def __init__(self, tenants: Mapping[str, TenantConfig], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets = {
            name: _Bucket(tenant.requests_per_minute / 60, tenant.burst, tenant.burst, clock())
            for name, tenant in tenants.items()
            if tenant.requests_per_minute is not None
        }

    async def take(self, tenant: str, cost: float) -> None:
        """Take `cost` tokens; a request that costs more than a full bucket takes all of it."""
        bucket = self._buckets.get(tenant)
        if bucket is None:
            return
        now = self._clock()
        bucket.tokens = min(bucket.burst, bucket.tokens + (now - bucket.filled) * bucket.per_s)
        bucket.filled = now
        wanted = min(cost, bucket.burst)
        if bucket.tokens < wanted:
            wait = (wanted - bucket.tokens) / bucket.per_s
            raise BusyError(
                f"tenant {tenant}: its {bucket.per_s * 60:g} requests a minute are used up; "
                f"try again in {math.ceil(wait)} s",
                retry_after_s=wait,
            )
        bucket.tokens -= wanted


class Slots:
    """Places for what is under way in this process; `what` names it in errors."""

    def __init__(self, places: int, what: str) -> None:
        self._places = places
        self._what = what
        self._taken = 0

    @contextmanager
    def hold(self) -> Iterator[None]:
        """One place, as long as the block lasts; raises BusyError at once when there is none."""
        if self._taken >= self._places:
            raise BusyError(
                f"all {self._places} places for {self._what} are taken; try again in {_RETRY_S:g} s",
                _RETRY_S,
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


class BatchCost:
    """Counts the texts of a batch; the request itself is counted already, at the gate."""

    def __init__(self, limiter: Limiter, texts_per_request: int) -> None:
        self._limiter = limiter
        self._texts_per_request = texts_per_request

    async def take(self, tenant: str, texts: int) -> None:
        """Count what goes beyond one request; raises BusyError."""
        more = math.ceil(texts / self._texts_per_request) - 1
        if more > 0:
            await self._limiter.take(tenant, more)
