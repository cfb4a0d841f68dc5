"""Minutes of load on a cluster of several nodes while everything that can be killed is: `make chaos`."""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from load import Load, steady
from served import QUESTIONS, deployed, edition, free_port, http, kill, live, publish, roll_back, whole
from trials import check
from waiting import wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

KINDS = ("search", "reranked", "chat", "stream")
APPLICATION = f"tandem-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A cluster of three raylets, of which this process's is the head."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "object_store_memory": 200_000_000, "include_dashboard": False},
    )
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def port(nodes: Any) -> Iterator[int]:
    chosen = free_port()
    with http(chosen):
        yield chosen


@pytest.fixture(scope="module")
def key() -> str:
    from serve.api.keys import new_key

    return new_key()[0]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    publish(tmp_path / "store", edition(1))
    return tmp_path / "store"


def hashed(key: str) -> str:
    """What a configuration has of a key."""
    from serve.api.keys import hash_of

    return hash_of(key.encode())


@contextmanager
def server(store: Path, port: int, key: str, **settings: Any) -> Iterator[httpx2.Client]:
    """The application with two replicas of every partition, ready."""
    from serve.config import ServeConfig

    config = ServeConfig.model_validate(
        {
            "application": APPLICATION,
            "store": str(store),
            "index": ["facts"],
            "partitions": 2,
            "profile": "laptop",
            "poll_s": 0.2,
            "partition_s": 1.0,
            "reranker": {"engine": "fake", "model": "fake"},
            "deployments": {"partition": {"min_replicas": 2}},
            "api": {"tenants": {"tests": {"keys": [hashed(key)]}}, "description_s": 0.1},
            **settings,
        }
    )
    headers = {"Authorization": f"Bearer {key}"}
    with deployed(config, port) as url, httpx2.Client(base_url=url, headers=headers, timeout=60) as web:
        yield web


def go_on(load: Load, requests: int = 20) -> None:
    """Let the load run for some more requests."""
    seen = load.count()
    wait_for(lambda: load.count() > seen + requests, 120)


def test_replicas_are_killed_again_and_again(store: Path, port: int, key: str) -> None:
    chance = random.Random(1)
    victims = ["Partition-0", "Partition-1", "Retriever", "Reranker", "Generator"] * 3
    chance.shuffle(victims)
    with server(store, port, key) as web:
        with steady(str(web.base_url), key, QUESTIONS, KINDS, workers=2) as load:
            for victim in victims:
                kill(APPLICATION, victim)
                go_on(load)
            wait_for(lambda: whole(web), 120)
        check(load)


def test_ten_snapshots_go_live_under_load_and_the_first_comes_back(store: Path, port: int, key: str) -> None:
    with server(store, port, key) as web:
        with steady(str(web.base_url), key, QUESTIONS, KINDS, workers=2) as load:
            for number in range(2, 12):
                publish(store, edition(number), number=number)
                go_on(load, 5)
            wait_for(lambda: live(web) == 11, 120)
            roll_back(store, 1, 12)
            wait_for(lambda: live(web) == 12, 120)
        check(load, contents={**{number: number for number in range(1, 12)}, 12: 1})


def test_snapshots_go_live_while_partitions_are_killed(store: Path, port: int, key: str) -> None:
    with server(store, port, key) as web:
        with steady(str(web.base_url), key, QUESTIONS, KINDS, workers=2) as load:
            for number in range(2, 7):
                publish(store, edition(number), number=number)
                kill(APPLICATION, f"Partition-{number % 2}")
                go_on(load)
            wait_for(lambda: live(web) == 6 and whole(web), 120)
        check(load, contents={number: number for number in range(1, 7)})


def test_a_node_dies_with_everything_on_it(store: Path, port: int, key: str, nodes: Any) -> None:
    with server(store, port, key) as web:
        with steady(str(web.base_url), key, QUESTIONS, KINDS, workers=2) as load:
            go_on(load)
            lost = next(node for node in nodes.list_all_nodes() if not node.head)
            nodes.remove_node(lost, allow_graceful=False)
            nodes.add_node(num_cpus=1, object_store_memory=100_000_000)
            go_on(load, 60)
            wait_for(lambda: whole(web), 240)
        check(load)


def test_a_killed_gateway_drops_its_connections_and_a_retry_succeeds(store: Path, port: int, key: str) -> None:
    with (
        server(store, port, key) as web,
        openai.OpenAI(base_url=f"{web.base_url}/v1", api_key=key, max_retries=8, timeout=60) as client,
    ):
        for _ in range(3):
            kill(APPLICATION, "Gateway")
            answer = client.chat.completions.create(
                model="extractive", messages=[{"role": "user", "content": QUESTIONS[0]}]
            )
            assert answer.choices[0].message.content
            wait_for(lambda: whole(web), 120)


@pytest.mark.parametrize(
    ("deployment", "title", "kind"),
    [
        ("retriever", "Retriever", "search"),
        ("partition", "Partition-0", "search"),
        ("reranker", "Reranker", "reranked"),
        ("generator", "Generator", "chat"),
        ("gateway", "Gateway", "search"),
    ],
)
def test_a_deployment_follows_a_step_of_load_up_and_down_without_thrash(
    store: Path, port: int, key: str, deployment: str, title: str, kind: str
) -> None:
    scaling = {
        "min_replicas": 1,
        "max_replicas": 3,
        "max_ongoing_requests": 3,
        "look_back_s": 10.5,
        "upscale_delay_s": 10.5,
        "downscale_delay_s": 15.0,
        "num_cpus": 0.2,
    }
    settings: dict[str, Any] = {"deployments": {deployment: scaling}, "partitions": 1}
    if deployment == "partition":
        # Each retriever has two batches under way at most.
        scaling["max_ongoing_requests"] = 2
        settings["deployments"]["retriever"] = {"min_replicas": 3}
    if deployment == "gateway":
        scaling["max_ongoing_requests"] = 12
        settings["api"] = {"tenants": {"tests": {"keys": [hashed(key)]}}, "description_s": 0.1, "requests": 11}
    seen: list[int] = []

    def replicas(web: httpx2.Client) -> int:
        found = {item["name"]: item["replicas"] for item in web.get("/v1/status").json()["deployments"]}
        seen.append(found[title])
        return seen[-1]

    with server(store, port, key, **settings) as web:
        assert replicas(web) == 1
        with steady(str(web.base_url), key, QUESTIONS, (kind,), workers=10) as load:
            wait_for(lambda: replicas(web) > 1, 180)
            # As long again under the same load: the number may grow, never shrink.
            until = time.monotonic() + 30
            while time.monotonic() < until:
                replicas(web)
                time.sleep(0.5)
        wait_for(lambda: replicas(web) == 1, 240)
        check(load)
    steps = [after - before for before, after in pairwise(seen) if after != before]
    ups = [step > 0 for step in steps]
    assert ups == sorted(ups, reverse=True), f"went up and down: {seen}"
