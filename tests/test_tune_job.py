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
import train_bases
import yaml
from command_line import ROOT, end, run, start
from train_runs import ray_workers
from waiting import wait_beside, wait_for

from ray_jobs.errors import ConflictError, NotFoundError, TandemError, UsageError
from ray_jobs.runtime import ClusterSize, Machine
from ray_jobs.storage import open_storage
from ray_jobs.train import job as training
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.tune import driving, job
from ray_jobs.train.tune.campaign import Campaign
from ray_jobs.train.tune.config import TuneConfig
from ray_jobs.train.tune.summary import TuneSummary

Capsys = pytest.CaptureFixture[str]
DEADLINE_SECONDS = 240.0
BEST = 0.003


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """A search over the rates of a toy, of which one is clearly the best."""
    train = {
        "method": "sft",
        "base": str(folder / "chat"),
        "data": str(folder / "talk"),
        "store": str(folder / "store"),
        "name": "tuned",
        "optimisation": {
            "global_batch": 16,
            "micro_batch": 8,
            "max_steps": 60,
            "warmup": 0,
            "schedule": "constant",
            "precision": "float32",
        },
        "sequence": {"max_length": 32},
        "checkpoints": {"every_steps": 15},
    }
    space = {"optimisation.learning_rate": {"type": "choice", "values": [BEST, 1e-5, 1e-6]}}
    return {"train": train, "space": space, "search": "grid", "parallel": 1, **changes}


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and conversations."""
    folder = tmp_path_factory.mktemp("tune")
    train_bases.language_model(folder / "chat")
    train_bases.conversations(folder / "talk", train=256, validation=16)
    return folder


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
    file = write(toys, settings(toys))
    process = start(cluster | {"TANDEM_CACHE": os.environ["TANDEM_CACHE"]}, toys, "tune", "--config", file)
    wait_beside(
        process, lambda: len(list(toys.glob("store/runs/tuned/*/checkpoints/*.json"))) and len(ended(toys)) == 1
    )
    before = ended(toys)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return before, job.run(TuneConfig.model_validate(settings(toys, parallel=2)))


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


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"train": {"base": "/absent"}}, Exception, "/absent"),
        ({"train": {"data": "absent"}}, NotFoundError, "data=absent"),
        ({"objective": {"target": "f1", "retained": "wiki", "weight": 1}}, UsageError, "objective.retained=wiki"),
        ({"objective": {"target": "ndcg@10"}}, UsageError, "objective.target=ndcg@10: .* perplexity, token_kl"),
        (
            {"space": {"sequence.completion_only": {"type": "choice", "values": [False, True]}}},
            UsageError,
            "be compared; set train",
        ),
        ({"space": {"optimisation.lr": {"type": "choice", "values": [1]}}}, UsageError, "space.optimisation.lr"),
    ],
    ids=["base", "data", "retained", "target", "incomparable", "space"],
)
def test_what_cannot_be_trained_or_judged_is_refused_before_any_trial(
    toys: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    chosen = settings(toys)
    inner = {**chosen["train"], "name": "refused", **changes.get("train", {})}
    with pytest.raises(error, match=message):
        job.run(TuneConfig.model_validate({**chosen, **changes, "train": inner}))
    assert not (toys / "store" / "tune" / "refused").exists()


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Searches begin their trials and train none; the runs of those."""
    runs: list[str] = []

    def begin(config: TuneConfig, campaign: Campaign, *given: Any) -> bool:
        while campaign.next() is not None:
            pass
        runs.extend(trial.begun.run for trial in campaign._trials)
        return True

    monkeypatch.setattr(job, "_drive", begin)
    return runs


def searches(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("store/tune/tuned/*")}


def test_other_rows_of_a_replayed_or_retained_set_make_another_search(
    toys: Path, tmp_path: Path, begun: list[str]
) -> None:
    chosen = settings(toys, objective={"retained": "old", "weight": 1})
    chosen["train"] |= {
        "store": str(tmp_path / "store"),
        "replay": {"data": str(tmp_path / "again")},
        "evaluation": {"retained": {"old": str(tmp_path / "old")}},
    }
    config = TuneConfig.model_validate(chosen)
    train_bases.conversations(tmp_path / "old", train=8, validation=4)
    rows = {"train": [{"messages": [{"role": "user", "content": "ant"}, {"role": "assistant", "content": "bee"}]}]}
    train_bases.prepared(tmp_path / "again", rows, train_bases.MESSAGES)
    job.run(config)
    job.run(config)
    assert len(searches(tmp_path)) == 1
    train_bases.conversations(tmp_path / "old", train=8, validation=5)
    job.run(config)
    assert len(searches(tmp_path)) == 2
    train_bases.prepared(tmp_path / "again", {"train": rows["train"] * 2}, train_bases.MESSAGES)
    job.run(config)
    assert len(searches(tmp_path)) == 3


def test_a_search_whose_best_is_published_takes_more_trials(toys: Path, tmp_path: Path, begun: list[str]) -> None:
    chosen = settings(toys)
    chosen["train"]["store"] = str(tmp_path / "store")
    config = TuneConfig.model_validate(chosen)
    job.run(config)
    card = tmp_path / "store" / "models" / "tuned" / "card.json"
    card.parent.mkdir(parents=True)
    card.write_text(json.dumps({"run": begun[1]}))
    job.run(config)
    card.write_text(json.dumps({"run": "runs/tuned/other"}))
    with pytest.raises(ConflictError, match="made by runs/tuned/other, is there already"):
        job.run(config)
    card.unlink()
    (card.parent / "config.json").write_text("{}")
    with pytest.raises(ConflictError, match="is there already; choose another name"):
        job.run(config)
    open_storage(str(tmp_path / "store")).create(f"{begun[1]}/publishing-tuned", b"")
    job.run(config)


def test_a_new_search_does_not_take_the_name_of_a_model_without_a_card(
    toys: Path, tmp_path: Path, begun: list[str]
) -> None:
    chosen = settings(toys)
    chosen["train"]["store"] = str(tmp_path / "store")
    model = tmp_path / "store" / "models" / "tuned"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    with pytest.raises(ConflictError, match="is there already; choose another name"):
        job.run(TuneConfig.model_validate(chosen))
    assert not begun


@pytest.mark.parametrize(
    ("workers", "cluster_size", "expected"),
    [
        ({"count": 1}, ClusterSize(8, 0), 8),
        ({"count": 2, "cpus_per_worker": 3}, ClusterSize(16, 0), 2),
        ({"count": 1}, ClusterSize(64, 4), 4),
        ({"min": 1, "max": 2}, ClusterSize(3, 0), 1),
        ({"count": 2, "cpus_per_worker": 3}, ClusterSize(16, 0, (Machine(4), Machine(4), Machine(8))), 2),
        ({"count": 1, "cpus_per_worker": 4}, ClusterSize(9, 0, (Machine(3), Machine(6))), 1),
    ],
)
def test_as_many_trials_run_at_once_as_there_is_room_for(
    workers: dict[str, Any], cluster_size: ClusterSize, expected: int
) -> None:
    given = {"method": "sft", "base": "x", "data": "y", "name": "z", "workers": workers}
    assert job.parallel(TrainConfig.model_validate(given), cluster_size) == expected


def test_a_trial_that_never_fits_is_refused() -> None:
    given = {"method": "sft", "base": "x", "data": "y", "name": "z", "workers": {"count": 4}}
    with pytest.raises(UsageError, match=r"train\.workers=4 with 1 CPUs each: the cluster has 2"):
        job.parallel(TrainConfig.model_validate(given), ClusterSize(2, 0))


NEEDS_NOTHING: list[tuple[str, list[str]]] = [
    ("space: {seed: {type: int, low: 1, high: 3}}", ["expected one of train", "train_config", "set one"]),
    ("train: {name: x}", ["space is empty"]),
    ("train: {name: x}\nspace: {seed: {type: int, low: 3, high: 1}}", ["low=3 is not below high=1"]),
    ("train: {name: x}\nspace: {sed: {type: int, low: 1, high: 3}}", ["space.sed", "did you mean seed?"]),
    ("train: {name: x}\nspace: {seed: {type: int, low: 1, high: 3}}", ["train.method is missing"]),
    ("train: {seed: 4}\nspace: {seed: {type: int, low: 1, high: 3}}", ["space.seed and train.seed=4", "remove one"]),
    ("train_config: no.yaml\nspace: {seed: {type: int, low: 1, high: 3}}", ["train_config=no.yaml", "No such file"]),
    ("train: {name: x}\nspace: {seed: {type: ind, low: 1, high: 3}}", ["space.seed", "ind"]),
    ("train: {name: x}\nspace: {seed: {type: int, low: 1, high: 3}}\nsearch: magic", ["search='magic'", "'optuna'"]),
]


@pytest.mark.parametrize(("content", "fragments"), NEEDS_NOTHING, ids=[str(n) for n in range(len(NEEDS_NOTHING))])
def test_a_wrong_search_is_refused_in_one_line(
    capsys: Capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, fragments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tune.yaml").write_text(content)
    run(capsys, "tune", "--config", "tune.yaml").refused(*fragments, code=2)
    assert not (tmp_path / "tandem-store").exists()


@pytest.mark.slow
def test_a_search_by_what_is_gained_measures_its_trials(toys: Path, ray_session: None, tmp_path: Path) -> None:
    chosen = settings(toys, objective={"target": "perplexity"})
    chosen["space"] = {"optimisation.learning_rate": {"type": "choice", "values": [BEST]}}
    chosen["train"] |= {"store": str(tmp_path / "store"), "checkpoints": {"every_steps": 4}}
    chosen["train"]["optimisation"] |= {"max_steps": 4}
    summary = job.run(TuneConfig.model_validate(chosen))
    (row,) = summary.trials
    assert row.state == "finished", row
    (measured,) = [json.loads(file.read_text())["rows"] for file in tmp_path.glob("store/runs/tuned/*/evaluation.json")]
    gain = next(one["before"] - one["after"] for one in measured if one["metric"] == "perplexity")
    assert row.value == pytest.approx(gain)
    assert gain > 0


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
