"""`tandem train`: from a file of rows; interrupted, gone on with, found finished; what is refused in one line."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import train_bases
import yaml
from command_line import Ended, end, run, start
from train_runs import checkpoints, losses, outcome, plan_of, ray_workers, toy, train_alone, wait_until, went_on

from ray_jobs.storage import open_storage
from ray_jobs.train.config import TrainConfig

Capsys = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class Run:
    """A run over a file of rows, its configuration in a YAML file."""

    folder: Path
    config: TrainConfig
    yaml: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("cli")
    base = train_bases.language_model(folder / "chat")
    rows = train_bases.conversations(folder / "made", train=300)
    file = train_bases.as_json_lines(rows, folder / "talk.jsonl")
    config = toy(base, file, folder / "store", "talker", lora={"rank": 16, "alpha": 16})
    return Run(folder, config, written(folder / "run.yaml", config))


def written(file: Path, config: TrainConfig) -> Path:
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return file


def prepared(config: TrainConfig) -> TrainConfig:
    """The same run over the data that were prepared from its file."""
    return config.model_copy(update={"data": "talk"})


@pytest.fixture(scope="module")
def interrupted(made: Run, ray_session: None, cluster: dict[str, str]) -> Ended:
    """The command with Ctrl-C after its first checkpoint."""
    environment = cluster | {"TANDEM_CACHE": os.environ["TANDEM_CACHE"]}
    process = start(environment, made.folder, "train", "--config", made.yaml)
    data = made.folder / "store" / "datasets"
    wait_until(lambda: process.poll() is not None or list(data.glob("talk/*/card.json")))
    wait_until(lambda: process.poll() is not None or checkpoints(prepared(made.config)))
    process.send_signal(signal.SIGINT)
    ended = end(process)
    wait_until(lambda: not ray_workers())
    return ended


@pytest.fixture(scope="module")
def reported(made: Run, interrupted: Ended) -> str:
    """The report that the interrupted command has left."""
    config = prepared(made.config)
    return open_storage(config.store).read(f"{plan_of(config).run}/report.html").decode()


@pytest.fixture(scope="module")
def completed(made: Run, interrupted: Ended, reported: str) -> str:
    """The same command again, to its end: what it printed."""
    from cluster import cli

    assert interrupted.code == 130, interrupted
    printed = made.folder / "printed"
    with printed.open("w") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", stream)
        assert cli.run(["train", "--config", str(made.yaml)]) == 0
    return printed.read_text()


@pytest.mark.slow
def test_interrupted_it_says_what_is_kept_and_how_to_go_on(made: Run, interrupted: Ended) -> None:
    assert interrupted.code == 130
    assert "Traceback" not in interrupted.err
    last = interrupted.err.splitlines()[-1]
    assert last.startswith("interrupted; the checkpoint of step ")
    assert last.endswith(" is kept: the same command goes on from there")


@pytest.mark.slow
def test_interrupted_it_leaves_a_report_of_what_there_is(interrupted: Ended, reported: str) -> None:
    assert "This run is not finished: it was interrupted. The same command goes on with it." in reported
    assert "<svg" in reported


@pytest.mark.slow
def test_the_same_command_goes_on_with_the_losses_of_an_undisturbed_run(made: Run, completed: str) -> None:
    config = prepared(made.config)
    expected = losses(train_alone(config.model_copy(update={"name": "undisturbed"})))
    found = losses(config)
    assert outcome(config)["steps"] == 100
    assert went_on(config)
    assert found == pytest.approx(expected, rel=1e-2, abs=1e-4)
    early = {step: loss for step, loss in expected.items() if step <= 30}
    assert {step: found[step] for step in early} == pytest.approx(early, rel=1e-4)


@pytest.mark.slow
def test_it_says_what_it_has_trained(made: Run, completed: str) -> None:
    title, metrics, *_, place, report = completed.splitlines()
    assert title.startswith("talker: 100 steps, trained in ")
    assert metrics.startswith("best at step 100: validation ")
    assert ", loss 0." in metrics
    assert "runtime" not in metrics
    assert place == str(made.folder / "store" / "models" / "talker")
    assert "<html" in Path(report).read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_finished_run_says_so_and_trains_nothing(capsys: Capsys, made: Run, completed: str) -> None:
    again = run(capsys, "train", "--config", made.yaml)
    assert again.succeeded().splitlines()[0] == ("talker: 100 steps, was finished before, nothing was trained")
    as_json = json.loads(run(capsys, "train", "--config", made.yaml, "--json").succeeded())
    assert (as_json["steps"], as_json["trained"]) == (100, False)


REFUSED: list[tuple[dict[str, Any], tuple[str, ...], int]] = [
    ({"zero": {"stage": 4}}, ("zero.stage=4", "tandem train"), 2),
    ({"optimisation": {"micro_batch": 3}}, ("micro_batch=3", "set optimisation.micro_batch=2"), 2),
    ({"optimization": {}}, ("optimization", "unknown key"), 2),
    ({"method": "poem"}, ("method='poem'", "sft"), 2),
    ({"base": "/nowhere/base"}, ("/nowhere/base",), 1),
    ({"data": "nothing"}, ("data=nothing", "prepare the data first"), 1),
    ({"data": "/nowhere/rows.jsonl"}, ("data=/nowhere/rows.jsonl",), 1),
    ({"method": "dpo"}, ("method=dpo", "kind messages, expected preference"), 2),
]


@pytest.mark.parametrize(("changes", "named", "code"), REFUSED, ids=[str(changes) for changes, _, _ in REFUSED])
def test_what_cannot_be_trained_is_refused_in_one_line(
    capsys: Capsys, tmp_path: Path, made: Run, changes: dict[str, Any], named: tuple[str, ...], code: int
) -> None:
    keys = made.config.model_dump(mode="json") | {"data": str(made.folder / "made"), "name": "refused"}
    for key, value in changes.items():
        keys[key] = keys[key] | value if isinstance(value, dict) and key in keys else value
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(keys))
    run(capsys, "train", "--config", file).refused(*named, code=code)


def test_a_missing_key_is_named(capsys: Capsys) -> None:
    run(capsys, "train", "--method", "sft").refused("base is missing: give --base", code=2)


def test_a_key_that_is_written_wrong_is_named_before_the_one_that_is_missing_by_that(
    capsys: Capsys, tmp_path: Path
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("methud: sft\nbase: b\ndata: d\nname: n\n")
    run(capsys, "train", "--config", file).refused("methud='sft': unknown key", "(and 1 more)", code=2)


@pytest.mark.slow
def test_more_workers_than_the_cluster_has_are_refused(capsys: Capsys, made: Run, ray_session: None) -> None:
    flags = ("--data", made.folder / "made", "--name", "many", "--workers.count", 4, "--optimisation.micro-batch", 4)
    run(capsys, "train", "--config", made.yaml, *flags).refused(
        "workers=4 with 1 CPUs each: the cluster has 2; lower workers.count", code=2
    )


def test_flags_go_before_the_file(capsys: Capsys, made: Run) -> None:
    flags = ("--data", made.folder / "made", "--name", "x", "--optimisation.global-batch", 512)
    run(capsys, "train", "--config", made.yaml, *flags).refused("fewer than optimisation.global_batch=512", code=2)


def test_a_relative_file_is_found_from_where_the_command_is_typed(
    capsys: Capsys, made: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made.folder)
    run(capsys, "train", "--config", "run.yaml", "--data", "made", "--name", "x", "--method", "kto").refused(
        f"data={made.folder / 'made'}", code=2
    )
