"""Conversations and bases without a chat template: refused before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import train_bases
from evaluation_tasks import task
from train_runs import plan_of, settings

from ray_jobs.errors import UsageError
from ray_jobs.train.methods import method_of

ASKED = [{"role": "user", "content": "ant"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bases, one of them without a template, and rows of every kind that language models learn from."""
    made = tmp_path_factory.mktemp("templates")
    train_bases.language_model(made / "plain", chat=False)
    train_bases.language_model(made / "chat")
    train_bases.completions(made / "sft", train=16)
    train_bases.preferences(made / "dpo", train=16)
    train_bases.labelled(made / "kto", train=16)
    train_bases.conversations(made / "messages", train=16)
    row = {"prompt": "ant", "prompt_messages": ASKED, "chosen": "bee", "rejected": "cat"}
    rows = {"train": [row] * 8, "validation": [row], "test": [row]}
    train_bases.prepared(made / "asked", rows, train_bases.ASKED_PREFERENCE)
    return made


def planned(folder: Path, method: str, base: str, **changes: Any) -> None:
    plan_of(settings(method, folder / base, folder / method, folder / "store", "model", **changes))


@pytest.mark.parametrize("method", ["sft", "dpo", "kto"])
def test_a_retained_set_of_conversations_is_refused_before_training(folder: Path, method: str) -> None:
    wanted = {"evaluation": {"retained": {"talk": str(folder / "messages")}}}
    refused = r"base=.*plain has no chat template, and the rows of evaluation.retained.talk are conversations; choose"
    with pytest.raises(UsageError, match=refused):
        planned(folder, method, "plain", **wanted)
    planned(folder, method, "chat", **wanted)


def test_a_retained_set_of_answers_to_conversations_is_refused_before_training(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"no chat template, and the rows of evaluation.retained.talk"):
        planned(folder, "sft", "plain", evaluation={"retained": {"talk": str(folder / "asked")}})


def test_replayed_conversations_are_refused_before_training(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"no chat template, and the rows of replay.data are conversations"):
        planned(folder, "dpo", "plain", replay={"data": str(folder / "asked"), "share": 0.5})


def test_sets_of_texts_need_no_template(folder: Path) -> None:
    planned(folder, "sft", "plain", evaluation={"retained": {"old": str(folder / "dpo")}})


def test_a_target_of_conversations_is_refused_before_training(folder: Path) -> None:
    config = settings("sft", folder / "plain", folder / "messages", folder / "store", "m", evaluation={"test": True})
    with pytest.raises(UsageError, match=r"no chat template, and the rows of test are conversations"):
        plan_of(config)


def test_training_answers_to_conversations_is_refused(folder: Path, tmp_path: Path) -> None:
    asked = task(tmp_path, "dpo", folder / "plain", folder / "asked")
    with pytest.raises(UsageError, match=r"no chat template, and the prompts are conversations; choose a base"):
        method_of("dpo").trainer(asked)
