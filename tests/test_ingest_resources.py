"""What each stage takes of a cluster whose machines differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from ray_jobs.errors import UsageError
from ray_jobs.ingest.config import IngestConfig
from ray_jobs.ingest.preflight import check_resources
from ray_jobs.runtime import ClusterSize, Machine

CLUSTER = ClusterSize(24, 0, (Machine(4, resources={"readers": 2}), Machine(20)))


def config(**resources: object) -> IngestConfig:
    return IngestConfig.model_validate({"sources": ["a"], "index": "x", "resources": resources})


def test_what_some_machine_has_may_be_asked_for() -> None:
    check_resources(config(stage_on={"readers": 2}), CLUSTER)


@pytest.mark.parametrize(("name", "amount"), [("readers", 3), ("gpu_box", 1)])
def test_what_no_machine_has_is_refused_since_ray_would_wait_for_ever(name: str, amount: float) -> None:
    told = rf"resources\.embed_on={name}={amount}: no machine .* more than [02] of it; expected some of readers: start"
    with pytest.raises(UsageError, match=told):
        check_resources(config(embed_on={name: amount}), CLUSTER)


@pytest.mark.usefixtures("ray_session")
def test_on_a_cluster_without_named_resources_a_run_says_so_and_writes_nothing(tmp_path: Path) -> None:
    from ray_jobs.ingest import job

    (tmp_path / "a.txt").write_text("A text.")
    asked = {"sources": [str(tmp_path / "a.txt")], "index": "x", "store": str(tmp_path / "store")}
    settings = {**asked, "embedder": {"engine": "fake"}, "resources": {"build_on": {"absent": 1}}}
    with pytest.raises(UsageError, match=r"build_on=absent=1: .*no machine has a named resource"):
        job.run(IngestConfig.model_validate(settings))
    assert list((tmp_path / "store").rglob("*.parquet")) == []
