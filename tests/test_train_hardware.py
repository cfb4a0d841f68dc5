"""What workers compute on: GPUs asked for, precision, and what of it changes what is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import train_bases
from pydantic import ValidationError
from train_runs import plan_of, settings

from ray_jobs.errors import UsageError
from ray_jobs.runtime import ClusterSize
from ray_jobs.train import hardware
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.hardware import Hardware, of_workers, precision_of
from ray_jobs.train.room import gpus_of

CPU, GPU = ClusterSize(cpus=4, gpus=0), ClusterSize(cpus=4, gpus=4)


def config(method: str = "sft", **changes: Any) -> TrainConfig:
    return settings(method, Path("b"), Path("d"), Path("s"), "model", **changes)


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
    import ray

    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True}, {"Alive": True}])
    monkeypatch.setattr(hardware, "cpu_has_bfloat16", lambda: pytest.fail("the driver was asked"))
    assert of_workers(config(), CPU).device == "cpu"


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
    workers, changed = {"count": changed.get("workers", 1)}, {k: v for k, v in changed.items() if k != "workers"}
    first = settings(method, base, data, tmp_path / "store", "model")
    second = settings(method, base, data, tmp_path / "store", "model", workers=workers, optimisation=changed)
    assert (plan_of(first).run == plan_of(second).run) is same
