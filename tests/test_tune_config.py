"""The configuration of a search: its paths, its training file, what is fixed and what is searched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from ray_jobs.errors import UsageError
from ray_jobs.train.tune.config import TuneConfig
from ray_jobs.train.tune.dimensions import Dimension
from ray_jobs.train.tune.given import anchored, training
from ray_jobs.train.tune.space import Space

FIXED: dict[str, Any] = {"method": "sft", "base": "toy", "data": "talk", "name": "tuned"}
RATE = {"type": "loguniform", "low": 1e-5, "high": 1e-2}


def tune_config(**changes: Any) -> TuneConfig:
    return TuneConfig.model_validate({"train": FIXED, "space": {"optimisation.learning_rate": RATE}, **changes})


def test_a_key_that_is_searched_and_fixed_is_refused() -> None:
    config = tune_config(train={**FIXED, "optimisation": {"learning_rate": 0.1}})
    with pytest.raises(UsageError, match=r"space\.optimisation\.learning_rate and train\..*=0\.1: .* remove one"):
        training(config)


def test_every_path_is_absolute_and_every_name_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("base", "rows", "old", "adapter", "news.parquet"):
        (tmp_path / name).mkdir()
    given = {
        **FIXED,
        "base": "base",
        "data": "./rows",
        "lora": {"start": "./adapter"},
        "replay": {"data": "old"},
        "evaluation": {"retained": {"old": "old", "news": "news.parquet", "wiki": "wiki@1"}},
    }
    found = training(tune_config(train=given))
    assert (found["base"], found["data"]) == (str(tmp_path / "base"), str(tmp_path / "rows"))
    assert found["lora"] == {"start": str(tmp_path / "adapter")}
    assert found["replay"] == {"data": str(tmp_path / "old")}
    assert found["evaluation"]["retained"] == {
        "old": str(tmp_path / "old"),
        "news": str(tmp_path / "news.parquet"),
        "wiki": "wiki@1",
    }


def test_paths_that_are_searched_are_absolute_and_a_folder_by_two_names_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adapter").mkdir()
    starts = {"type": "choice", "values": [None, "tandem-reader", "./adapter"]}
    found = anchored(tune_config(space={"lora.start": starts}))
    assert found.space["lora.start"].grid() == [None, "tandem-reader", str(tmp_path / "adapter")]
    twice = {"type": "choice", "values": ["adapter", str(tmp_path / "adapter")]}
    with pytest.raises(UsageError, match=r"lora\.start\.values\[1\]=.*, as it does values\[0\]; name each value once"):
        Space(FIXED, anchored(tune_config(space={"lora.start": twice})).space)


def test_the_space_replaces_values_of_a_training_file(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text(f"method: sft\nbase: toy\ndata: {tmp_path}\nname: tuned\noptimisation: {{learning_rate: 0.1}}\n")
    found = training(tune_config(train=None, train_config=file))
    assert found["data"] == str(tmp_path)
    space = Space(found, {"optimisation.learning_rate": TypeAdapter(Dimension).validate_python(RATE)})
    config = space.config_at({"optimisation.learning_rate": 0.01})
    assert config is not None
    assert config.optimisation.learning_rate == 0.01


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"- a", "holds a list"), (b"a: [", "not YAML"), (b"\xff\xfe\x00", "not YAML"), (None, "No such file")],
)
def test_a_training_file_that_is_none_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "train.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=rf"train_config=.*{message}"):
        training(tune_config(train=None, train_config=file))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {}}, "space is empty"),
        ({"train": None}, "expected one of train"),
        ({"train_config": "x.yaml"}, "expected one of train"),
        ({"objective": {"metric": "eval_loss"}}, "metric=eval_loss with mode=None"),
        ({"objective": {"retained": "wiki"}}, "retained=wiki without weight or max_loss"),
        ({"objective": {"weight": 1}}, "without retained"),
        ({"objective": {"target": "f1", "retained_metric": "f1"}}, "retained_metric=f1 without retained"),
        ({"objective": {"retained": "wiki", "weight": 1, "max_loss": 1}}, "expected one of them"),
        ({"objective": {"target": "f1", "metric": "eval_loss", "mode": "min"}}, "by validation or by evaluation"),
        ({"scheduler": {"grace": 0.5, "grace_steps": 5}}, "both say the same"),
        ({"scheduler": {"grace_steps": 5, "max_steps": 5}}, "lower grace_steps"),
        ({"scheduler": {"max_steps": 5}, "objective": {"target": "f1"}}, "only a run that ends is evaluated"),
        ({"scheduler": {"reduction_factor": 1}}, "greater than 1"),
        ({"trials": 0}, "greater than or equal to 1"),
    ],
    ids=str,
)
def test_a_wrong_configuration_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        tune_config(**changes)
    assert message in str(refused.value)


def test_the_scheduler_is_named_or_described() -> None:
    assert tune_config(scheduler="asha").scheduler == tune_config().scheduler
    assert tune_config(scheduler="none").scheduler == "none"
