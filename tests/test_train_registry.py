"""A method of fine-tuning is one class and one line: whoever must know something of it asks the class."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from command_line import ROOT, run
from pydantic import ValidationError

from ray_jobs.errors import ModelError, UsageError
from ray_jobs.models.kind import Kind, kind_of
from ray_jobs.train import publish
from ray_jobs.train.checkpoints import Checkpoint
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.evaluation import judges
from ray_jobs.train.fit import explained
from ray_jobs.train.memory import memory_remedy
from ray_jobs.train.methods import METHODS, Method, Mode, Task, method_of, metric_of
from ray_jobs.train.plan import Plan


class Verses(Method):
    """A method that nobody else knows of."""

    name = "verses"
    kinds: tuple[str, ...] = ("completion",)
    metric: tuple[str, Mode] = ("eval_rhymes", "max")
    makes: Kind = "generator"
    judge = "language"
    fitting = "a base that has read poems"
    in_batch = "rhymes are the other lines"

    def trainer(self, task: Task) -> Any:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "verses", (__name__, "Verses"))


def config(**changes: Any) -> TrainConfig:
    return TrainConfig.model_validate({"method": "verses", "base": "b", "data": "d", "name": "n", **changes})


def test_a_registered_method_is_taken_and_what_it_cannot_do_is_refused() -> None:
    assert metric_of(config()) == ("eval_rhymes", "max")
    assert config(lora={"quantise": "4bit"}).lora is not None
    with pytest.raises(ValidationError, match=r"packing=true with method=verses: only sft packs rows"):
        config(sequence={"packing": True})
    with pytest.raises(ValidationError, match=r"micro_batch=1: rhymes are the other lines of a micro-batch"):
        config(optimisation={"micro_batch": 1})
    assert "lower optimisation.micro_batch=8 (starts the run anew)" in memory_remedy(config())


def test_it_has_its_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "import_module", lambda name: SimpleNamespace(LanguageJudge=lambda *given: name))
    task = cast("Task", SimpleNamespace(config=config()))
    assert judges.judge_of(task, Path()) == cast("Any", "ray_jobs.train.evaluation.language")
    judges.check_kind("verses", "evaluation.retained.old", "messages")
    with pytest.raises(UsageError, match=r"evaluation.retained.old: .* kind qa, and method=verses is measured on mess"):
        judges.check_kind("verses", "evaluation.retained.old", "qa")


def test_its_models_are_known_for_what_they_are(tmp_path: Path) -> None:
    checkpoint = Checkpoint(
        key="c", step=4, workers=1, engine="ddp", stage=0, metric=None, metrics={}, method="verses",
        base_revision="b1", data_hash="d1", files={},
    )  # fmt: skip
    plan = Plan(config(lora={}), "store", "run", "b1", "d1", "train", "validation", "cpu", "float32")
    form = publish.form_of(plan)
    (tmp_path / "card.json").write_text(json.dumps(publish.card(plan, checkpoint, form)))
    assert (form, kind_of(tmp_path)) == ("adapter", "generator")


def test_a_base_that_does_not_fit_is_told_which_would(tmp_path: Path) -> None:
    task = cast("Task", SimpleNamespace(config=config(), base=tmp_path))
    with pytest.raises(ModelError, match=r"choose a base that has read poems"), explained(task):
        exec("raise ValueError('no verse')", {"__name__": "transformers.models"})


def test_a_wrong_name_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--method", "poem", "--base", "b", "--data", "d", "--name", "n")
    run(capsys, "train", *flags).refused(
        "method='poem': input should be 'sft', 'dpo', 'kto', 'embedder', 'reranker', 'reader' or 'verses'", code=2
    )


def test_a_card_that_does_not_say_leaves_it_to_the_files(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text('{"method": "reranker", "kind": "poet"}')
    assert kind_of(tmp_path) is None
    (tmp_path / "adapter_config.json").write_text('{"task_type": "SEQ_CLS"}')
    assert kind_of(tmp_path) == "reranker"


def test_every_method_says_of_itself_what_others_ask_without_a_library_that_trains() -> None:
    asked = "import sys; from ray_jobs.train.methods import METHODS, method_of\n"
    asked += "from ray_jobs.train.config import TrainConfig\n"
    asked += "for name in METHODS: TrainConfig(method=name, base='b', data='d', name='n')\n"
    asked += "print(sorted({'torch', 'transformers', 'trl', 'datasets'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    for name in METHODS:
        method = method_of(name)
        assert method.judge in judges.JUDGES
        assert method.fitting
