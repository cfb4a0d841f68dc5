"""What workers compute on: GPUs asked for, precision, and what of it changes what is learned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import train_bases
from pydantic import ValidationError
from test_train_checkpoints import record
from train_runs import plan_of, settings

from ray_jobs.errors import UsageError
from ray_jobs.runtime import ClusterSize, Machine, cluster_size
from ray_jobs.storage import open_storage
from ray_jobs.train import hardware, job
from ray_jobs.train.checkpoints import Checkpoints
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.hardware import Hardware, of_workers, precision_of
from ray_jobs.train.room import gpus_of, largest_machine

NO_GPU = r"workers.gpus_per_worker=1: no machine of this cluster has a GPU; set workers.gpus_per_worker=0"
CPU, GPU = ClusterSize(cpus=4, gpus=0), ClusterSize(cpus=4, gpus=4)


def config(method: str = "sft", **changes: Any) -> TrainConfig:
    return settings(method, Path("b"), Path("d"), Path("s"), "model", **changes)


def machine(alive: bool = True, **resources: float) -> dict[str, Any]:
    """A machine as Ray tells of it."""
    return {"NodeID": "1a", "Alive": alive, "Resources": resources}


@pytest.mark.parametrize(
    ("asked", "cluster", "expected"),
    [("auto", CPU, 0), ("auto", GPU, 1), (0, GPU, 0), ("0", GPU, 0), (1, GPU, 1), (1, CPU, 1)],
)
def test_a_worker_has_one_gpu_or_none(asked: object, cluster: ClusterSize, expected: int) -> None:
    assert gpus_of(config(workers={"gpus_per_worker": asked}).workers, cluster) == expected


@pytest.mark.parametrize("asked", [0.5, 2, -1])
def test_parts_of_gpus_and_several_are_refused(asked: float) -> None:
    with pytest.raises(ValidationError, match="gpus_per_worker"):
        config(workers={"gpus_per_worker": asked})


@pytest.mark.parametrize(
    ("asked", "has_bfloat16", "expected"),
    [
        ("auto", True, "bfloat16"),
        ("auto", False, "float32"),
        ("float32", True, "float32"),
        ("bfloat16", True, "bfloat16"),
    ],
)
def test_the_precision_is_that_of_the_workers_hardware(asked: str, has_bfloat16: bool, expected: str) -> None:
    assert precision_of(config(optimisation={"precision": asked}), Hardware("cuda", has_bfloat16)) == expected


def test_a_precision_that_the_workers_lack_is_refused() -> None:
    with pytest.raises(UsageError, match=r"optimisation.precision=bfloat16: the workers' GPU .*; use float32"):
        precision_of(config(optimisation={"precision": "bfloat16"}), Hardware("cuda", False))


def test_of_several_machines_one_with_room_for_a_worker_is_asked(
    ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "cpu_has_bfloat16", lambda: pytest.fail("the driver was asked"))
    assert of_workers(config(), ClusterSize(2, 0, (Machine(1), Machine(1)))).device == "cpu"


@pytest.mark.parametrize("machines", [1, 2])
def test_a_gpu_that_no_machine_has_is_refused_and_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, machines: int
) -> None:
    import ray

    lost = machine(alive=False, CPU=4, GPU=1)
    monkeypatch.setattr(ray, "nodes", lambda: [*[machine(CPU=4)] * machines, lost])
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0 * machines})
    monkeypatch.setattr(ray._private.state, "available_resources_per_node", dict)
    with pytest.raises(UsageError, match=NO_GPU):
        of_workers(config(workers={"gpus_per_worker": 1}), cluster_size())


def test_a_task_by_itself_has_the_cpus_of_a_machine_with_its_gpus() -> None:
    machines = (Machine(16), Machine(4, 2), Machine(2, 1))
    workers = config(workers={"gpus_per_worker": 1}).workers
    assert largest_machine(workers, 1, ClusterSize(22, 3, machines)) == 4
    assert largest_machine(workers, 0, ClusterSize(22, 3, machines)) == 16
    with pytest.raises(UsageError, match=NO_GPU):
        largest_machine(workers, 1, ClusterSize(16, 0, machines[:1]))


def test_a_run_that_was_trained_on_gpus_is_not_measured_where_there_are_none_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def without_gpus() -> Iterator[ClusterSize]:
        yield CPU

    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    (tmp_path / "base" / "model.safetensors").write_bytes(b"")
    data = train_bases.completions(tmp_path / "data", train=8)
    asked = settings(
        "sft", tmp_path / "base", data, tmp_path / "store", "model",
        workers={"gpus_per_worker": 1}, evaluation={"test": True},
    )  # fmt: skip
    storage, run = open_storage(asked.store), plan_of(asked)
    storage.create(run.finished, b'{"precision": "float32", "steps": 8, "history": [], "checkpoint_seconds": []}')
    checkpoints = Checkpoints(storage, run.run)
    key = checkpoints.key(8, "a")
    storage.create(f"{key}/config.json", b"{}")
    checkpoints.commit(record(key=key, step=8, metric=1.0, metrics={"eval_loss": 1.0}))
    monkeypatch.setattr(job, "session", without_gpus)
    with pytest.raises(UsageError, match=NO_GPU):
        job.run(asked)


def test_a_run_goes_on_in_the_precision_in_which_it_was_begun(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    data = train_bases.completions(tmp_path / "data", train=8)
    asked = settings("sft", tmp_path, data, tmp_path / "store", "model", optimisation={"precision": "auto"})
    storage, plan = open_storage(asked.store), replace(plan_of(asked), precision="float32")
    assert job.as_begun(plan, storage) == plan
    checkpoints = Checkpoints(storage, plan.run)
    for step, precision in ((4, None), (8, "bfloat16")):
        key = checkpoints.key(step, "a")
        storage.create(f"{key}/config.json", b"{}")
        checkpoints.commit(record(key=key, step=step, precision=precision))
        assert job.as_begun(plan, storage).precision == (precision or "float32")


@pytest.mark.parametrize(
    ("method", "changed", "same"),
    [
        ("sft", {"micro_batch": 4}, True),
        ("sft", {"workers": 2}, True),
        ("embedder", {"workers": 2}, True),
        ("kto", {"workers": 2}, False),
        ("sft", {"gradient_checkpointing": True}, True),
        ("sft", {"global_batch": 16}, False),
        ("embedder", {"micro_batch": 4}, False),
        ("kto", {"micro_batch": 4}, False),
        ("embedder", {"gradient_checkpointing": True}, True),
        ("reranker", {"micro_batch": 4}, True),
        ("reranker", {"micro_batch": 4, "loss": "lambda"}, False),
    ],
)
def test_a_run_is_another_one_where_something_else_is_learned(
    tmp_path: Path, method: str, changed: dict[str, Any], same: bool
) -> None:
    base = train_bases.embedder(tmp_path / "base") if method == "embedder" else tmp_path
    if method != "embedder":
        (tmp_path / "config.json").write_text("{}")
        (tmp_path / "model.safetensors").write_bytes(b"")
    data = train_bases.retrieval(tmp_path / "data", train=8)
    loss: dict[str, Any] = {"reranker": {"loss": changed["loss"]}} if "loss" in changed else {}
    workers = {"count": changed.get("workers", 1)}
    changed = {key: value for key, value in changed.items() if key not in ("workers", "loss")}
    first = settings(method, base, data, tmp_path / "store", "model", **loss)
    second = settings(method, base, data, tmp_path / "store", "model", workers=workers, optimisation=changed, **loss)
    assert (plan_of(first).run == plan_of(second).run) is same
