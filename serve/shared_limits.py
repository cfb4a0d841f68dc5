"""One count of each tenant's requests for all gateways, kept by an actor that belongs to the Gateway deployment.

Guaranteed: as long as the actor lives, what all gateways let through together is within each tenant's limits. Not
guaranteed: the count itself when it dies; the controller starts a new one with full buckets, and until then each
gateway counts alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from serve.api.config import TenantConfig
from serve.api.limits import TokenBuckets
from serve.errors import BusyError

ACTOR = "limits"
_ANSWER_S = 0.5


class Counter:
    """The actor's side: buckets, and refusals as values."""

    def __init__(self, tenants: Mapping[str, TenantConfig]) -> None:
        self._buckets = TokenBuckets(tenants)

    async def take(self, tenant: str, cost: float) -> BusyError | None:
        """As Limiter.take, but for the refusal, which is returned."""
        try:
            await self._buckets.take(tenant, cost)
        except BusyError as refusal:
            return refusal
        return None


class SharedBuckets:
    """A Limiter that asks the actor; tenants without a limit cost no call."""

    def __init__(self, tenants: Mapping[str, TenantConfig]) -> None:
        self._limited = {name for name, tenant in tenants.items() if tenant.requests_per_minute is not None}
        self._alone = TokenBuckets(tenants)
        self._actor: Any = None

    async def take(self, tenant: str, cost: float) -> None:
        """Count `cost` requests of `tenant`; raises BusyError when they are too many."""
        if tenant not in self._limited:
            return
        try:
            refusal = await self._ask(tenant, cost)
        except ConnectionError:
            return await self._alone.take(tenant, cost)
        if refusal is not None:
            raise refusal

    async def _ask(self, tenant: str, cost: float) -> BusyError | None:
        """What the actor says; ConnectionError when there is none at the moment."""
        from ray import serve
        from ray.exceptions import RayError

        try:
            if self._actor is None:
                self._actor = await asyncio.to_thread(serve.get_deployment_actor, ACTOR)
            refusal: BusyError | None = await asyncio.wait_for(self._actor.take.remote(tenant, cost), _ANSWER_S)
        except (RayError, ValueError, TimeoutError) as error:
            self._actor = None  # a new one has another handle
            raise ConnectionError from error
        return refusal


def actor_config(tenants: Mapping[str, TenantConfig]) -> Any:
    """The actor as the Gateway deployment declares it."""
    import ray
    from ray.serve.config import DeploymentActorConfig

    return DeploymentActorConfig(
        name=ACTOR,
        actor_class=ray.remote(Counter),
        init_kwargs={"tenants": dict(tenants)},
        actor_options={"num_cpus": 0},
    )
