"""What deployments ask of the cluster."""

from __future__ import annotations

from typing import get_args

import pytest
from pydantic import ValidationError

from serve.config import ServeConfig
from serve.scaling import PROFILES, Name, Profile, Scaling, options, resolve

NAMES: tuple[Name, ...] = get_args(Name)


def test_on_a_laptop_everything_starts_on_two_cpus() -> None:
    wanted = {name: resolve("laptop", name, Scaling()) for name in NAMES}
    partitions = 4
    total = sum(
        (scaling.num_cpus or 0) * (partitions if name == "partition" else 1) for name, scaling in wanted.items()
    )
    assert total <= 2
    assert all(scaling.min_replicas == scaling.max_replicas == 1 for scaling in wanted.values())


@pytest.mark.parametrize("profile", list(PROFILES))
@pytest.mark.parametrize("name", NAMES)
def test_ray_serve_takes_the_options_of_every_profile(profile: Profile, name: Name) -> None:
    from ray import serve

    class Deployment:
        pass

    made = serve.deployment(Deployment).options(name=name, **options(resolve(profile, name, Scaling())))
    assert made.name == name


def test_what_is_given_wins_over_the_profile() -> None:
    resolved = resolve("cluster", "retriever", Scaling(num_cpus=3, min_replicas=12))
    assert (resolved.num_cpus, resolved.min_replicas, resolved.max_replicas) == (3, 12, 12)
    assert resolved.max_ongoing_requests == PROFILES["cluster"]["retriever"].max_ongoing_requests


@pytest.mark.parametrize("name", NAMES)
def test_a_deployment_never_grows_on_less_than_it_looks_back_on(name: Name) -> None:
    resolved = resolve("cluster", name, Scaling(min_replicas=1, max_replicas=4, look_back_s=20, upscale_delay_s=1))
    autoscaling = options(resolved)["autoscaling_config"]
    assert autoscaling["upscale_delay_s"] >= autoscaling["look_back_period_s"]
    assert autoscaling["target_ongoing_requests"] < options(resolved)["max_ongoing_requests"]


def test_a_gateway_takes_more_than_it_lets_in() -> None:
    config = ServeConfig.model_validate({"index": "facts", "api": {"requests": 1000}})
    resolved = resolve("laptop", "gateway", config.scaling_of("gateway"))
    assert resolved.max_ongoing_requests == 1250
    for profile in PROFILES:
        shipped = resolve(profile, "gateway", ServeConfig(index=("facts",)).scaling_of("gateway"))
        assert shipped.max_ongoing_requests == PROFILES[profile]["gateway"].max_ongoing_requests


def test_a_gateway_that_could_only_queue_is_refused() -> None:
    given = {"index": "facts", "api": {"requests": 50}, "deployments": {"gateway": {"max_ongoing_requests": 50}}}
    with pytest.raises(ValidationError, match=r"expected more than api\.requests=50"):
        ServeConfig.model_validate(given)
