"""A training job that is stopped says what is kept of it, whatever it was at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from train_runs import settings

from ray_jobs.storage import open_storage
from ray_jobs.train import job
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.plan import Plan


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return settings("sft", tmp_path / "base", tmp_path / "rows.jsonl", tmp_path / "store", "model")


def stop(*given: Any) -> None:
    raise KeyboardInterrupt


def test_stopped_while_it_prepares_its_data_it_says_how_to_go_on(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "prepare_file", stop)
    with pytest.raises(KeyboardInterrupt, match=r"is prepared and trained is kept: the same command goes on$"):
        job.run(config)


def test_stopped_while_it_measures_it_says_that_it_is_trained(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(config, config.store, "runs/model/1", "b", "d", "train", "validation", "cpu", "float32")
    open_storage(config.store).create(plan.finished, b'{"precision": "float32"}')
    monkeypatch.setattr(job, "prepare_file", lambda *given: "rows")
    monkeypatch.setattr(job, "make_plan", lambda *given: plan)
    monkeypatch.setattr(job.publish, "check_free", lambda *given: None)
    monkeypatch.setattr(job, "best", lambda *given: "the best")
    monkeypatch.setattr(job.before_after, "missing", stop)
    with pytest.raises(KeyboardInterrupt, match=r"is trained and its checkpoints are kept: the same command measures"):
        job.run(config)
