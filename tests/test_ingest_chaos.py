"""An ingest of which something is killed, again and again: nothing is lost, nothing is there twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from command_line import FAKE, copy_store, end, rows, run, start, write_articles, write_notes
from processes import of_this_run
from waiting import wait_beside, wait_for

from ray_jobs.index.manifest import read_live
from ray_jobs.index.verify import verify
from ray_jobs.storage import LocalStorage

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

Capsys = pytest.CaptureFixture[str]

DEADLINE_SECONDS = 120.0
CHUNKING = ("--chunking.max-tokens", 16, "--chunking.overlap-tokens", 0, "--chunking.min-tokens", 1)
SETTINGS = (*FAKE, "--group-bytes", 16384, *CHUNKING, "--shards", 6)
WORKERS = ("ray::MapBatches", "ray::MapWorker")


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Path:
    """A store whose index `x` has notes and the first articles."""
    from cluster import cli

    folder = tmp_path_factory.mktemp("before")
    write_notes(folder / "notes")
    corpus = write_articles(folder / "articles.jsonl", 100)
    for source in (folder / "notes", corpus):
        arguments = ["ingest", source, "--index", "x", "--store", folder / "store", *SETTINGS]
        assert cli.run([str(argument) for argument in arguments]) == 0
    write_articles(corpus, 400)
    return folder


@pytest.fixture(scope="module")
def undisturbed(before: Path) -> list[dict[str, object]]:
    """What a run that nothing disturbs makes of it: every live row and vector."""
    from cluster import cli

    store = copy_store(before / "store", before / "undisturbed")
    assert cli.run([str(argument) for argument in command(before, store)]) == 0
    return rows(store, "x")


def command(before: Path, store: Path) -> tuple[object, ...]:
    return ("ingest", before / "articles.jsonl", "--index", "x", "--store", store, *SETTINGS)


def objects(store: Path) -> int:
    return sum(1 for path in store.rglob("*") if path.is_file() and ".scratch" not in path.parts)


def wait_until(process: subprocess.Popen[str], store: Path, count: int) -> None:
    """Wait until the store has so many objects, or the process has ended."""
    wait_for(lambda: objects(store) >= count or process.poll() is not None, DEADLINE_SECONDS)


def workers() -> list[psutil.Process]:
    return [process for name in WORKERS for process in of_this_run(name)]


def assert_as_undisturbed(store: Path, undisturbed: list[dict[str, object]]) -> None:
    storage = LocalStorage(store)
    assert rows(store, "x") == undisturbed
    live = read_live(storage, "x")
    assert live.counts.check() == []
    assert verify(storage, live).problems == ()
    assert list(storage.list("indexes/x/leases")) == []


@pytest.mark.parametrize("seed", range(25))
def test_whatever_is_killed_at_whatever_moment_the_same_command_ends_as_if_nothing_had_happened(
    cluster: dict[str, str], tmp_path: Path, before: Path, undisturbed: list[dict[str, object]], seed: int
) -> None:
    chance = random.Random(seed)
    store = copy_store(before / "store", tmp_path / "store")
    at_first = objects(store)
    old = rows(store, "x")
    kills = 0
    for _ in range(10):
        process = start(cluster, tmp_path, *command(before, store))
        if kills < 1 + seed % 3:
            wait_until(process, store, objects(store) + chance.randrange(1, 120))
            if process.poll() is None:
                victims = workers()
                if victims and chance.random() < 0.5:
                    for victim in chance.sample(victims, chance.randint(1, len(victims))):
                        victim.kill()
                else:
                    process.kill()
                kills += 1
        ended = end(process)
        if ended.code == 0:
            break
        assert ended.code == -signal.SIGKILL, ended
        assert rows(store, "x") in (old, undisturbed)
    assert objects(store) > at_first
    assert_as_undisturbed(store, undisturbed)


def test_a_run_that_was_asleep_cannot_publish_over_the_one_that_took_its_place(
    capsys: Capsys, tmp_path: Path, before: Path, undisturbed: list[dict[str, object]]
) -> None:
    store = copy_store(before / "store", tmp_path / "store")
    # With a Ray of its own: what it holds of the cluster, it holds while it sleeps.
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    asleep = start(environment, tmp_path, *command(before, store))
    wait_beside(asleep, lambda: list(store.glob("indexes/x/work/*/receipts/embedded/*.json")), DEADLINE_SECONDS)
    os.kill(asleep.pid, signal.SIGSTOP)
    try:
        run(capsys, *command(before, store)).refused(
            "index=x: another run writes to it", f"process {asleep.pid}", code=1
        )
        for sign in store.glob("indexes/x/leases/*.json"):
            old = time.time() - 600
            os.utime(sign, (old, old))
        assert "published snapshot 3" in run(capsys, *command(before, store)).succeeded()
    finally:
        os.kill(asleep.pid, signal.SIGCONT)
    end(asleep).refused("snapshot 3 was published by another run meanwhile", code=1)
    assert_as_undisturbed(store, undisturbed)


@pytest.fixture
def two_machines() -> Iterator[object]:
    """A cluster of two machines."""
    from ray.cluster_utils import Cluster

    size = {"num_cpus": 1, "object_store_memory": 100_000_000}
    machines = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
    machines.add_node(**size)
    machines.wait_for_nodes()
    yield machines
    machines.shutdown()


@pytest.mark.parametrize("stage", ["embedded", "built"])
def test_a_machine_that_is_lost_in_the_middle_of_a_stage_costs_nothing(
    two_machines: object, tmp_path: Path, before: Path, undisturbed: list[dict[str, object]], stage: str
) -> None:
    store = copy_store(before / "store", tmp_path / "store")
    environment = {**os.environ, "RAY_ADDRESS": two_machines.address}  # type: ignore[attr-defined]
    process: subprocess.Popen[str] = start(environment, tmp_path, *command(before, store))
    wait_beside(process, lambda: list(store.glob(f"indexes/x/work/*/receipts/{stage}/*.json")), DEADLINE_SECONDS)
    [lost] = [node for node in two_machines.list_all_nodes() if not node.head]  # type: ignore[attr-defined]
    two_machines.remove_node(lost, allow_graceful=False)  # type: ignore[attr-defined]
    assert "published snapshot 3" in end(process).succeeded()
    assert_as_undisturbed(store, undisturbed)


def test_a_machine_that_comes_in_the_middle_of_embedding_is_used(tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    size = {"num_cpus": 1, "object_store_memory": 100_000_000}
    machines = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
    try:
        corpus, store = write_articles(tmp_path / "articles.jsonl", 1500), tmp_path / "store"
        settings = ("--embedder.engine", "torch", "--group-bytes", 16384, *CHUNKING)
        environment = {**os.environ, "RAY_ADDRESS": machines.address}
        process = start(environment, tmp_path, "ingest", corpus, "--index", "x", "--store", store, *settings)
        wait_beside(process, lambda: list(store.glob("indexes/x/work/*/receipts/embedded/*.json")), DEADLINE_SECONDS)
        machines.add_node(**size)
        assert "published snapshot 1" in end(process).succeeded()
    finally:
        machines.shutdown()
    (told,) = store.glob("runs/*/events.jsonl")
    events = [json.loads(line) for line in told.read_text().splitlines()]
    embedders = {event["worker"] for event in events if event["event"] == "piece" and event["stage"] == "embed"}
    assert len(embedders) == 2
