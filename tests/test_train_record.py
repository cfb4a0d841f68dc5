"""Event files of TensorBoard and times of steps, of runs that are killed and go on."""

from __future__ import annotations

from pathlib import Path

import pytest
import train_bases
from local_runs import KillAfter, Killed, events, train
from train_runs import attempts, losses, outcome, settings

from ray_jobs.train.checkpoints import Checkpoint, Checkpoints
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.record import SECONDS, scalars, step_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("record")
    train_bases.language_model(made / "base")
    train_bases.conversations(made / "data")
    return made


def config(folder: Path, name: str) -> TrainConfig:
    return settings("sft", folder / "base", folder / "data", folder / "store", name)


def logged_once(config: TrainConfig) -> None:
    found = events(config)
    assert [step for step, _ in found["train/loss"]] == list(range(1, 9))
    assert [step for step, _ in found["eval/loss"]] == [4, 8]
    assert dict(found["train/loss"]) == pytest.approx(losses(config))


@pytest.fixture(scope="module")
def alone(folder: Path) -> TrainConfig:
    """A run that nobody disturbs."""
    found = config(folder, "alone")
    train(found)
    return found


def test_a_run_that_is_left_alone_logs_every_step_once(alone: TrainConfig) -> None:
    logged_once(alone)
    assert "train/learning_rate" in events(alone)
    assert [(one["step"], one["workers"], one["device"]) for one in attempts(alone)] == [(0, 1, "cpu")]


def test_steps_after_the_checkpoint_that_is_resumed_from_are_logged_once(folder: Path) -> None:
    killed = config(folder, "killed")
    with pytest.raises(Killed):
        train(killed, KillAfter(6))
    train(killed)
    logged_once(killed)
    assert [one["step"] for one in attempts(killed)] == [0, 4]


def test_a_run_killed_between_its_events_and_its_checkpoint_logs_every_step_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    between = config(folder, "between")
    commit = Checkpoints.commit

    def killed(self: Checkpoints, record: Checkpoint) -> None:
        if record.step == 8:
            raise Killed
        commit(self, record)

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "commit", killed)
        with pytest.raises(Killed):
            train(between)
    assert [step for step, _ in events(between)["train/loss"]] == list(range(1, 9))
    train(between)
    logged_once(between)


def test_the_log_tells_how_long_the_steps_took(alone: TrainConfig) -> None:
    found = [entry[SECONDS] for entry in outcome(alone)["history"] if "loss" in entry]
    assert found == sorted(found)
    assert 0 < found[0] < found[-1]


def test_only_numbers_of_a_step_are_events() -> None:
    logs = {"loss": 2, "eval_loss": 1.0, "epoch": 0.5, "note": "x", "bad": float("nan"), "flag": True}
    assert scalars(logs) == {"train/loss": 2.0, "eval/loss": 1.0}
    assert scalars({"train_runtime": 3.0, "loss": 1.0}) == {}


def test_the_last_step_of_a_file_is_in_its_name() -> None:
    assert step_of("runs/a/b/tensorboard/events.out.tfevents.00000012.abc") == 12
    assert step_of("runs/a/b/tensorboard/other") == -1
