"""Runs whose driver or machines are killed, and whose store is a bucket."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import train_bases
from command_line import Ended, end, start
from s3_server import s3_server
from test_train_cli import written
from train_runs import (
    DEADLINE_SECONDS,
    SHARDED_WHOLLY,
    attempts,
    checkpoints,
    losses,
    plan_of,
    ray_workers,
    toy,
    train_alone,
    wait_until,
    went_on,
)
from waiting import wait_for

from ray_jobs.storage import open_storage
from ray_jobs.train import job
from ray_jobs.train.config import TrainConfig

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

DRIVER = (
    "import sys; from ray_jobs.train import job; from ray_jobs.train.config import TrainConfig; "
    "job.run(TrainConfig.model_validate_json(sys.argv[1]))"
)
LORA = {"lora": {"rank": 16, "alpha": 16}}
EARLY = 30  # until here nothing but rounding has had time to grow


@dataclass(frozen=True)
class Places:
    """Base, data and store of this file."""

    folder: Path
    chat: Path
    conversations: Path

    def toy(self, name: str, store: str | None = None, **changes: Any) -> TrainConfig:
        config = toy(self.chat, self.conversations, self.folder / "store", name, **changes)
        return config if store is None else config.model_copy(update={"store": store})


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    folder = tmp_path_factory.mktemp("chaos")
    return Places(
        folder,
        train_bases.language_model(folder / "chat"),
        train_bases.conversations(folder / "conversations", train=256, validation=16),
    )


@pytest.fixture(scope="module")
def undisturbed(places: Places) -> dict[str, dict[int, float]]:
    """The losses of runs of one worker that are left alone: of all weights, and of an adapter."""
    return {
        "full": losses(train_alone(places.toy("left-alone"))),
        "lora": losses(train_alone(places.toy("left-alone-lora", **LORA))),
    }


def same(found: dict[int, float], expected: dict[int, float]) -> None:
    """Check that two runs have the same losses, but for rounding that has grown."""
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, rel=1e-2, abs=1e-4)
    early = {step: loss for step, loss in expected.items() if step <= EARLY}
    assert {step: found[step] for step in early} == pytest.approx(early, rel=1e-4)


def test_after_a_killed_driver_the_same_command_goes_on_with_the_same_losses(
    ray_session: None, cluster: dict[str, str], places: Places, undisturbed: dict[str, dict[int, float]]
) -> None:
    config = places.toy("abandoned", workers={"count": 2}, **LORA)
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, config.model_dump_json()],
        env=cluster | {"TANDEM_CACHE": os.environ["TANDEM_CACHE"]},
    )
    wait_until(lambda: checkpoints(config) or driver.poll() is not None)
    driver.kill()
    driver.wait()
    wait_until(lambda: not ray_workers())
    begun = checkpoints(config)[-1].step
    assert begun < 100
    summary = job.run(config)
    assert (summary.trained, summary.steps) == (True, 100)
    assert [one["step"] for one in attempts(config)] == [0, begun]
    same(losses(config), undisturbed["lora"])


def is_trained_by_two(config: TrainConfig, step: int) -> bool:
    return any(made.step >= step for made in checkpoints(config)) and len(ray_workers()) == 2


def test_each_worker_may_be_lost_one_after_the_other(
    ray_session: None, places: Places, undisturbed: dict[str, dict[int, float]]
) -> None:
    config = places.toy(
        "each", workers={"count": 2}, zero=SHARDED_WHOLLY, checkpoints={"every_steps": 25, "max_failures": 2}
    )
    found: list[job.TrainSummary] = []
    thread = threading.Thread(target=lambda: found.append(job.run(config)))
    thread.start()
    for place, step in ((0, 25), (1, 50)):
        wait_until(partial(is_trained_by_two, config, step))
        sorted(ray_workers(), key=lambda worker: worker.pid)[place].kill()
        wait_until(lambda: len(ray_workers()) < 2)
    thread.join(DEADLINE_SECONDS)
    assert found[0].restarts == 2
    assert went_on(config)
    same(losses(config), undisturbed["full"])


def ended(process: subprocess.Popen[str], seconds: float = DEADLINE_SECONDS) -> Ended:
    """Wait for a command that trains; one that takes longer does not outlive the test, and tells how far it came."""
    try:
        wait_for(lambda: process.poll() is not None, seconds)
    except AssertionError:
        process.kill()
        raise AssertionError(f"not over after {seconds} s: {end(process)}") from None
    return end(process)


def test_a_lost_machine_costs_no_more_than_its_worker(
    places: Places, undisturbed: dict[str, dict[int, float]], tmp_path: Path
) -> None:
    from ray.cluster_utils import Cluster

    size = {"num_cpus": 1, "object_store_memory": 100_000_000}
    machines = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
    try:
        second = machines.add_node(**size)
        machines.wait_for_nodes()
        config = places.toy("machines", workers={"min": 1, "max": 2}, zero={"stage": 2})
        environment = {**os.environ, "RAY_ADDRESS": machines.address}
        process = start(environment, tmp_path, "train", "--config", written(tmp_path / "run.yaml", config))
        wait_until(lambda: checkpoints(config) or process.poll() is not None)
        assert checkpoints(config), end(process)
        assert checkpoints(config)[-1].workers == 2
        machines.remove_node(second, allow_graceful=False)
        assert "1 restarts" in ended(process).succeeded()
    finally:
        machines.shutdown()
    assert checkpoints(config)[-1].workers == 1
    same(losses(config), undisturbed["full"])


@pytest.mark.timeout(1200)
def test_a_machine_that_comes_is_taken_into_the_run(places: Places, tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    # So slow that a run of thousands of steps does not let rounding grow; Ray looks for machines once a minute.
    gentle: dict[str, Any] = {
        "optimisation": {"global_batch": 16, "micro_batch": 8, "max_steps": 5000, "learning_rate": 1e-6},
        "checkpoints": {"every_steps": 500, "log_every_steps": 500},
    }
    expected = losses(train_alone(places.toy("one-machine", **gentle)))
    size = {"num_cpus": 1, "object_store_memory": 100_000_000}
    machines = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
    try:
        config = places.toy("two-machines", workers={"min": 1, "max": 2}, zero={"stage": 2}, **gentle)
        environment = {**os.environ, "RAY_ADDRESS": machines.address}
        process = start(environment, tmp_path, "train", "--config", written(tmp_path / "run.yaml", config))
        wait_until(lambda: checkpoints(config) or process.poll() is not None)
        assert checkpoints(config), end(process)
        assert checkpoints(config)[-1].workers == 1
        machines.add_node(**size)
        machines.wait_for_nodes()
        ended(process, 2 * DEADLINE_SECONDS).succeeded()
    finally:
        machines.shutdown()
    assert checkpoints(config)[-1].workers == 2
    assert losses(config) == pytest.approx(expected, rel=1e-3)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The environment that reaches an S3 server."""
    with s3_server() as found:
        for name, value in found.environment.items():
            monkeypatch.setenv(name, value)
        yield {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}


def test_a_run_whose_store_is_a_bucket_goes_on_after_its_driver_is_killed(
    places: Places, bucket: dict[str, str], undisturbed: dict[str, dict[int, float]], tmp_path: Path
) -> None:
    config = places.toy("in-a-bucket", store="s3://bucket/store", workers={"count": 2}, zero={"stage": 2})
    command = ("train", "--config", written(tmp_path / "run.yaml", config))
    process = start(bucket, tmp_path, *command)
    wait_until(lambda: checkpoints(config) or process.poll() is not None)
    process.kill()
    end(process)
    assert not open_storage(config.store).exists(plan_of(config).finished)
    # Another machine: nothing that the first has kept is there.
    again = start(bucket | {"TANDEM_CACHE": str(tmp_path / "cache")}, tmp_path, *command)
    assert "in-a-bucket: 100 steps, trained" in ended(again).succeeded()
    assert went_on(config)
    same(losses(config), undisturbed["full"])
    assert open_storage(config.store).exists("models/in-a-bucket/card.json")
