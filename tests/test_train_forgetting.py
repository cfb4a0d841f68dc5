"""What a run gains, what it forgets, and that replay keeps it; measured on Ray, and trained without it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import tiny_language_models
import train_bases
from tiny_rerankers import WORDS
from train_runs import outcome, plan_of, settings, train_alone

from ray_jobs.storage import open_storage
from ray_jobs.train import before_after, job
from ray_jobs.train.config import TrainConfig

OLD, NEW = WORDS[:12], WORDS[12:24]


def rows(chance: random.Random, count: int, words: tuple[str, ...] | list[str], shift: int) -> list[dict[str, Any]]:
    """Three words asked, answered by those that stand `shift` further on."""
    found = []
    for _ in range(count):
        asked = chance.sample(range(len(words)), 3)
        answer = "".join(f" {words[(place + shift) % len(words)]}" for place in asked)
        found.append({"prompt": " ".join(words[place] for place in asked), "completion": answer})
    return found


def task_of(folder: Path, words: Any, shift: int) -> Path:
    chance = random.Random(shift)
    distinct = list({row["prompt"]: row for row in rows(chance, 700, words, shift)}.values())
    splits = {"train": distinct[:400], "validation": distinct[400:432], "test": distinct[432:496]}
    return train_bases.prepared(folder, splits, train_bases.COMPLETION)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks that have no word in common, and a base that has learned the old one."""
    import pyarrow.parquet as pq
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = tmp_path_factory.mktemp("forgetting")
    old = task_of(made / "old", OLD, 5)
    task_of(made / "new", NEW, 3)
    raw = train_bases.language_model(made / "raw", initializer_range=0.2)
    tokenizer = AutoTokenizer.from_pretrained(raw)
    model = AutoModelForCausalLM.from_pretrained(raw)
    learned = pq.read_table(old / "train.parquet").to_pylist()
    pairs = [
        (tokenizer(row["prompt"])["input_ids"], [*tokenizer(row["completion"])["input_ids"], tokenizer.eos_token_id])
        for row in learned
    ]
    chance = random.Random(0)
    tiny_language_models.fit(model, [chance.sample(pairs, 32) for _ in range(400)], 0.01)
    tiny_language_models.save(made / "base", model, tokenizer)
    return made


def config(folder: Path, name: str, **changes: Any) -> TrainConfig:
    chosen: dict[str, Any] = {
        "lora": {"rank": 8, "alpha": 32},
        "optimisation": {"global_batch": 32, "micro_batch": 32, "max_steps": 120, "learning_rate": 0.01},
        "checkpoints": {"every_steps": 60, "log_every_steps": 10},
        "evaluation": {"test": True, "retained": {"old": str(folder / "old")}, "samples": 3},
    }
    return settings("sft", folder / "base", folder / "new", folder / "store", name, **{**chosen, **changes})


def table(config: TrainConfig) -> dict[tuple[str, str], dict[str, Any]]:
    found = before_after.rows(plan_of(config), open_storage(config.store))
    return {(row["set"], row["metric"]): row for row in found}


def content(config: TrainConfig, name: str) -> Any:
    return json.loads(open_storage(config.store).read(f"{plan_of(config).run}/{name}"))


@pytest.fixture(scope="module")
def forgetful(ray_session: None, folder: Path) -> TrainConfig:
    """A run that learns the new task alone."""
    found = config(folder, "forgetful")
    lines = job.run(train_alone(found)).lines()
    assert any(line.startswith("retained old: perplexity ") for line in lines)
    return found


@pytest.fixture(scope="module")
def mindful(ray_session: None, folder: Path) -> TrainConfig:
    """The same run with a share of the old task."""
    found = config(folder, "mindful", replay={"data": str(folder / "old"), "share": 0.3})
    job.run(train_alone(found))
    return found


@pytest.mark.slow
def test_the_new_task_is_learned_and_the_old_one_forgotten(forgetful: TrainConfig) -> None:
    found = table(forgetful)
    target, retained = found["test", "perplexity"], found["old", "perplexity"]
    assert (target["role"], retained["role"]) == ("target", "retained")
    assert target["after"] < 0.2 * target["before"]
    assert retained["before"] < 2
    assert retained["low"] > 1
    assert found["old", "token_kl"]["low"] > 0.1


@pytest.mark.slow
def test_with_replay_less_is_forgotten(forgetful: TrainConfig, mindful: TrainConfig) -> None:
    without, with_replay = table(forgetful), table(mindful)
    assert with_replay["old", "perplexity"]["high"] < without["old", "perplexity"]["low"]
    assert with_replay["old", "token_kl"]["high"] < without["old", "token_kl"]["low"]
    target = with_replay["test", "perplexity"]
    assert target["after"] < 0.2 * target["before"]


@pytest.mark.slow
def test_samples_show_what_was_said_before_and_after(forgetful: TrainConfig) -> None:
    found = content(forgetful, "samples.json")
    assert len(found) == 3
    assert all(set(sample) == {"prompt", "expected", "before", "after"} for sample in found)
    assert sum(sample["after"] == sample["expected"].strip() for sample in found) >= 2, found
    assert all(sample["before"] != sample["expected"].strip() for sample in found)


@pytest.mark.slow
def test_the_card_of_the_model_has_the_evaluation(forgetful: TrainConfig) -> None:
    card = json.loads(open_storage(forgetful.store).read("models/forgetful/card.json"))
    assert card["evaluation"] == content(forgetful, "evaluation.json")["rows"]


@pytest.mark.slow
def test_a_run_killed_while_it_was_measured_is_measured_and_not_trained_again(forgetful: TrainConfig) -> None:
    storage, run = open_storage(forgetful.store), plan_of(forgetful).run
    before = content(forgetful, "evaluation.json")
    history = outcome(forgetful)
    storage.delete(f"{run}/evaluation.json")
    again = job.run(forgetful)
    assert not again.trained
    assert content(forgetful, "evaluation.json") == before
    assert outcome(forgetful) == history


@pytest.mark.slow
def test_what_was_measured_is_not_measured_again(forgetful: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(before_after, "measure", None)
    assert not job.run(forgetful).trained


@pytest.mark.slow
def test_the_run_leaves_a_report_and_events(forgetful: TrainConfig) -> None:
    storage, run = open_storage(forgetful.store), plan_of(forgetful).run
    text = storage.read(f"{run}/report.html").decode()
    assert "forgetful" in text
    assert "old" in text
    assert any(item.key.count("tfevents") for item in storage.list(f"{run}/tensorboard"))
