"""One application from one configuration: `import_path: serve.app:build` of a Ray Serve config.

Guaranteed: pure but for the look at the cluster's size when the profile is `auto`. The number of partitions is fixed
here; which shards they hold follows the snapshots.
"""

from __future__ import annotations

from typing import Any

from ray import serve

from ray_jobs.runtime import LAPTOP_CPUS
from serve.config import ServeConfig
from serve.deployments import (
    GatewayDeployment,
    GeneratorDeployment,
    PartitionDeployment,
    RerankerDeployment,
    RetrieverDeployment,
)
from serve.handles import Bulks
from serve.scaling import Name, Profile, options, resolve
from serve.shared_limits import actor_config

# Tandem's own access log replaces Ray Serve's, which writes a line for every call between deployments.
_LOGGING = {"enable_access_log": False}
_MARGIN_S = 5.0


def build(config: ServeConfig) -> Any:
    """The application: Gateway over Retriever (over its partitions), Generator and, if configured, Reranker."""
    profile = profile_of(config)

    def deployed(kind: type, name: Name, title: str) -> Any:
        return serve.deployment(kind).options(
            name=title,
            logging_config=_LOGGING,
            # Whoever stops finishes what it has begun.
            graceful_shutdown_timeout_s=config.api.deadline_s + _MARGIN_S,
            **options(resolve(profile, name, config.scaling_of(name))),
        )

    count = partition_count(config, profile)
    partitions = [
        deployed(PartitionDeployment, "partition", f"Partition-{position}").bind(config, position, count)
        for position in range(count)
    ]
    retriever = deployed(RetrieverDeployment, "retriever", "Retriever").bind(config, partitions)
    generator = deployed(GeneratorDeployment, "generator", "Generator").bind(config)
    reranker = None if config.reranker is None else deployed(RerankerDeployment, "reranker", "Reranker").bind(config)
    gateway = deployed(serve.ingress()(GatewayDeployment), "gateway", "Gateway")
    if any(tenant.requests_per_minute is not None for tenant in config.api.tenants.values()):
        gateway = gateway.options(deployment_actors=[actor_config(config.api.tenants)])
    return gateway.bind(config, bulks_of(config, profile), retriever, generator, reranker)


def bulks_of(config: ServeConfig, profile: Profile) -> Bulks:
    """How a gateway sends searches: as many calls at a time as all retrievers take."""
    scaling = resolve(profile, "retriever", config.scaling_of("retriever"))
    assert scaling.max_ongoing_requests is not None
    assert scaling.max_replicas is not None
    return Bulks(config.batch, scaling.max_ongoing_requests * scaling.max_replicas)


def profile_of(config: ServeConfig) -> Profile:
    """The profile that is asked for, or the one that suits the cluster."""
    if config.profile != "auto":
        return config.profile
    import ray

    cpus = ray.cluster_resources().get("CPU", 0) if ray.is_initialized() else 0
    return "laptop" if cpus <= LAPTOP_CPUS else "cluster"


def partition_count(config: ServeConfig, profile: Profile) -> int:
    """How many partitions: as asked, else one on a laptop and one a node in a cluster."""
    if config.partitions is not None:
        return config.partitions
    if profile == "laptop":
        return 1
    import ray

    return max(1, sum(1 for node in ray.nodes() if node["Alive"])) if ray.is_initialized() else 1
