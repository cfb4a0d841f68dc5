"""What each deployment asks of the cluster and how far it scales: two profiles, and what a user sets on top.

Guaranteed: pure. The laptop profile starts everything on two CPUs: replicas ask for fractions of one, and none of them
scales. In the cluster profile a deployment aims at 70 % of the requests that its replicas take at once, waits at least
as long as it looks back before it grows, and waits longer before it shrinks, so that it follows load without thrashing.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Profile = Literal["laptop", "cluster"]
Name = Literal["gateway", "retriever", "partition", "reranker", "generator"]

_AIM = 0.7  # of max_ongoing_requests
_REPORTS_S = 10.0  # between two reports of a replica's load, by Ray Serve's default


class Scaling(BaseModel):
    """One deployment; None takes what the profile says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_replicas: int | None = Field(None, ge=0, description="replicas at least")
    max_replicas: int | None = Field(None, ge=1, description="replicas at most")
    max_ongoing_requests: int | None = Field(None, ge=1, description="requests that one replica works on at once")
    max_queued_requests: int | None = Field(
        None, ge=-1, description="requests that wait in each caller; -1: any number"
    )
    num_cpus: float | None = Field(None, ge=0, description="CPUs of one replica")
    num_gpus: float | None = Field(None, ge=0, description="GPUs of one replica")
    memory: int | None = Field(None, ge=1, description="bytes of memory that one replica reserves")
    look_back_s: float | None = Field(None, gt=_REPORTS_S, description="seconds over which load is averaged")
    upscale_delay_s: float | None = Field(None, ge=0, description="seconds of high load before a replica is added")
    downscale_delay_s: float | None = Field(None, ge=0, description="seconds of low load before one is removed")


class DeploymentsConfig(BaseModel):
    """What differs from the profile, deployment by deployment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gateway: Scaling = Scaling()
    retriever: Scaling = Scaling()
    partition: Scaling = Scaling()
    reranker: Scaling = Scaling()
    generator: Scaling = Scaling()


# A request to the retriever is a bulk of searches, of which a gateway keeps as many under way as all replicas take. A
# request to a partition is a batch, of which a retriever has two under way: many fewer than searches.
_LAPTOP: dict[Name, Scaling] = {
    "gateway": Scaling(num_cpus=0.1, max_ongoing_requests=160, max_queued_requests=-1),
    "retriever": Scaling(num_cpus=0.3, max_ongoing_requests=4, max_queued_requests=-1),
    "partition": Scaling(num_cpus=0.1, max_ongoing_requests=4, max_queued_requests=-1),
    "reranker": Scaling(num_cpus=0.2, max_ongoing_requests=64, max_queued_requests=64),
    "generator": Scaling(num_cpus=0.3, max_ongoing_requests=16, max_queued_requests=32),
}
_CLUSTER: dict[Name, Scaling] = {
    "gateway": Scaling(num_cpus=1, max_replicas=8, max_ongoing_requests=160, max_queued_requests=-1),
    "retriever": Scaling(num_cpus=2, max_replicas=8, max_ongoing_requests=4, max_queued_requests=-1),
    "partition": Scaling(num_cpus=2, max_replicas=4, max_ongoing_requests=4, max_queued_requests=-1),
    "reranker": Scaling(num_cpus=2, max_replicas=8, max_ongoing_requests=64, max_queued_requests=64),
    "generator": Scaling(num_cpus=2, max_replicas=8, max_ongoing_requests=16, max_queued_requests=32),
}
_DEFAULT = Scaling(
    min_replicas=1, max_replicas=1, num_gpus=0, look_back_s=30.0, upscale_delay_s=30.0, downscale_delay_s=120.0
)
PROFILES: dict[Profile, dict[Name, Scaling]] = {"laptop": _LAPTOP, "cluster": _CLUSTER}


def resolve(profile: Profile, name: Name, given: Scaling) -> Scaling:
    """The settings of a deployment: what is given, then the profile, then what holds for all."""
    values: dict[str, Any] = {}
    for layer in (_DEFAULT, PROFILES[profile][name], given):
        values |= layer.model_dump(exclude_none=True)
    values["max_replicas"] = max(values["max_replicas"], values["min_replicas"], 1)
    values["upscale_delay_s"] = max(values["upscale_delay_s"], values["look_back_s"])
    return Scaling(**values)


def options(scaling: Scaling) -> dict[str, Any]:
    """Ray Serve's options of a deployment with these settings, all of which are set."""
    resources: dict[str, Any] = {"num_cpus": scaling.num_cpus, "num_gpus": scaling.num_gpus}
    if scaling.memory is not None:
        resources["memory"] = scaling.memory
    found: dict[str, Any] = {
        "max_ongoing_requests": scaling.max_ongoing_requests,
        "max_queued_requests": scaling.max_queued_requests,
        "ray_actor_options": resources,
    }
    if scaling.min_replicas == scaling.max_replicas:
        return found | {"num_replicas": scaling.min_replicas}
    assert scaling.max_ongoing_requests is not None
    autoscaling = {
        "min_replicas": scaling.min_replicas,
        "max_replicas": scaling.max_replicas,
        "target_ongoing_requests": max(1.0, _AIM * scaling.max_ongoing_requests),
        "look_back_period_s": scaling.look_back_s,
        "upscale_delay_s": scaling.upscale_delay_s,
        "downscale_delay_s": scaling.downscale_delay_s,
    }
    return found | {"autoscaling_config": autoscaling}
