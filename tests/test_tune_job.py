"""The search job with real training: a killed driver, early stopping, and a best configuration that is ready."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tune_toys
import yaml
from command_line import ROOT, end, run, start
from train_runs import ray_workers
from tune_toys import BEST, settings
from waiting import wait_beside, wait_for

from ray_jobs.errors import ConflictError, TandemError
from ray_jobs.storage import open_storage
from ray_jobs.train import job as training
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.tune import driving, job
from ray_jobs.train.tune.config import TuneConfig
from ray_jobs.train.tune.summary import TuneSummary

Capsys = pytest.CaptureFixture[str]
DEADLINE_SECONDS = 240.0
GAIN = {"target": "perplexity"}


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and conversations."""
    return tune_toys.make(tmp_path_factory.mktemp("tune"))


def write(folder: Path, settings: dict[str, Any]) -> Path:
    file = folder / "tune.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


def ended(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("store/tune/tuned/*/trials/*/ended.json"))]


@pytest.fixture(scope="module")
def stopped_and_gone_on(
    toys: Path, cluster: dict[str, str], ray_session: None
) -> tuple[list[dict[str, Any]], TuneSummary]:
    """A search whose driver is killed in its second trial, with what had ended by then, and the same command again."""
    chosen = settings(toys, objective=GAIN)
    file = write(toys, chosen)
    process = start(cluster | {"TANDEM_CACHE": os.environ["TANDEM_CACHE"]}, toys, "tune", "--config", file)
    wait_beside(
        process, lambda: len(list(toys.glob("store/runs/tuned/*/checkpoints/*.json"))) and len(ended(toys)) == 1
    )
    before = ended(toys)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return before, job.run(TuneConfig.model_validate({**chosen, "parallel": 2}))


@pytest.mark.slow
def test_the_best_rate_is_found_and_those_far_behind_are_stopped_early(
    stopped_and_gone_on: tuple[list[dict[str, Any]], TuneSummary],
) -> None:
    _, summary = stopped_and_gone_on
    best = summary.trials[0]
    assert best.point == {"optimisation.learning_rate": BEST}
    assert (best.state, best.step) == ("finished", 60)
    assert [row.state for row in summary.trials[1:]] == ["stopped"] * 2
    assert all(row.step < 60 for row in summary.trials[1:])
    assert summary.complete


@pytest.mark.slow
def test_a_trial_is_worth_what_it_has_gained(
    stopped_and_gone_on: tuple[list[dict[str, Any]], TuneSummary], toys: Path
) -> None:
    _, summary = stopped_and_gone_on
    [measured] = [json.loads(file.read_text())["rows"] for file in toys.glob("store/runs/tuned/*/evaluation.json")]
    gain = next(one["before"] - one["after"] for one in measured if one["metric"] == "perplexity")
    assert summary.trials[0].value == pytest.approx(gain)
    assert gain > 0
    assert [row.value for row in summary.trials[1:]] == [None] * 2


@pytest.mark.slow
def test_after_a_killed_driver_what_had_ended_is_not_run_again(
    stopped_and_gone_on: tuple[list[dict[str, Any]], TuneSummary], toys: Path
) -> None:
    before, summary = stopped_and_gone_on
    assert len(before) == 1
    assert [entry for entry in ended(toys) if entry["number"] == before[0]["number"]] == before
    assert sorted(row.trial for row in summary.trials) == [0, 1, 2]


@pytest.mark.slow
def test_only_the_best_run_is_left_and_nothing_is_published(
    stopped_and_gone_on: tuple[list[dict[str, Any]], TuneSummary], toys: Path
) -> None:
    _, summary = stopped_and_gone_on
    left = {str(path.relative_to(toys / "store")) for path in toys.glob("store/runs/tuned/*")}
    assert left == {summary.trials[0].run}
    assert not (toys / "store" / "models").exists()
    assert not ray_workers()


@pytest.mark.slow
def test_a_search_that_is_done_runs_nothing_and_says_the_same(
    stopped_and_gone_on: tuple[list[dict[str, Any]], TuneSummary], toys: Path, capsys: Capsys
) -> None:
    _, summary = stopped_and_gone_on
    shown = run(capsys, "tune", "--config", toys / "tune.yaml").succeeded().splitlines()
    assert shown[0].split() == ["trial", "state", "value", "learning_rate", "step", "s"]
    assert shown[1].split()[:2] == ["0", "finished"]
    assert f"best is trial 0: tandem train --config {summary.best_config}" in shown
    found = json.loads(run(capsys, "tune", "--config", toys / "tune.yaml", "--json").succeeded())
    assert found["trials"] == json.loads(summary.model_dump_json())["trials"]


@pytest.mark.slow
def test_the_best_configuration_is_published_by_train_without_training_it_again(
    stopped_and_gone_on: tuple[list[dict[str, Any]], TuneSummary], toys: Path, capsys: Capsys
) -> None:
    _, summary = stopped_and_gone_on
    assert summary.best_config is not None
    config = TrainConfig.model_validate(yaml.safe_load(Path(summary.best_config).read_text()))
    assert training.make_plan(config, open_storage(config.store)).run == summary.trials[0].run
    published = json.loads(run(capsys, "train", "--config", summary.best_config, "--json").succeeded())
    assert published["trained"] is False
    assert published["metrics"] == pytest.approx(summary.trials[0].metrics)
    assert (toys / "store" / "models" / "tuned" / "card.json").is_file()
    more = settings(toys, space={"optimisation.learning_rate": {"type": "choice", "values": [BEST, 0.02]}})
    with pytest.raises(ConflictError, match=r"name=tuned: .* choose another name"):
        job.run(TuneConfig.model_validate(more))


@pytest.mark.slow
def test_a_trial_that_meets_a_defect_says_which(
    toys: Path, ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(given: dict[str, Any], common: dict[str, Any]) -> None:
        raise ValueError("no such luck")

    monkeypatch.setattr(driving, "run_trial", broken)
    chosen = settings(toys)
    chosen["train"]["store"] = str(tmp_path / "store")
    with pytest.raises(TandemError, match="ValueError: no such luck"):
        job.run(TuneConfig.model_validate(chosen))


@pytest.mark.chaos
def test_an_interrupted_search_says_how_to_go_on_and_keeps_what_it_has(
    toys: Path, cluster: dict[str, str], tmp_path: Path
) -> None:
    chosen = settings(toys)
    chosen["train"]["store"] = str(tmp_path / "store")
    process = start(
        cluster | {"TANDEM_CACHE": os.environ["TANDEM_CACHE"]}, tmp_path, "tune", "--config", write(tmp_path, chosen)
    )
    wait_beside(process, lambda: len(ended(tmp_path)) == 1)
    process.send_signal(signal.SIGINT)
    stopped = end(process)
    assert stopped.code == 130
    assert stopped.err.splitlines()[-1] == (
        "interrupted; 1 of 3 trials have ended and are kept; run the same command to go on"
    )
    assert "Traceback" not in stopped.err
    assert list(tmp_path.glob("store/tune/tuned/*/best.yaml"))


@pytest.mark.chaos
def test_lost_workers_and_a_spent_budget_cost_no_trial(toys: Path, ray_session: None, tmp_path: Path) -> None:
    chosen = settings(toys, scheduler="none", time_budget_s=20)
    chosen["train"]["store"] = str(tmp_path / "store")
    first = job.run(TuneConfig.model_validate(chosen))
    assert not first.complete
    wait_for(lambda: not ray_workers(), DEADLINE_SECONDS)
    before = set(tmp_path.glob("store/runs/tuned/*/checkpoints/*.json"))
    code = "import json, sys; from ray_jobs.train.tune import job; from ray_jobs.train.tune.config import TuneConfig; "
    code += "print(job.run(TuneConfig.model_validate_json(sys.argv[1])).model_dump_json())"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps({**chosen, "time_budget_s": None})],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_beside(process, lambda: ray_workers() and set(tmp_path.glob("store/runs/tuned/*/checkpoints/*.json")) - before)
    for worker in ray_workers():
        worker.kill()
    out, _ = process.communicate(timeout=DEADLINE_SECONDS)
    summary = TuneSummary.model_validate_json(out.splitlines()[-1])
    assert [row.state for row in summary.trials] == ["finished"] * 3
    assert summary.trials[0].point == {"optimisation.learning_rate": BEST}
