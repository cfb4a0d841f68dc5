"""Checkpoints as every method leaves them, with an adapter and without, are measured; no Ray."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import tiny_readers
import train_bases
from local_runs import train
from tiny_rerankers import WORDS
from train_runs import checkpoints, plan_of, settings

from ray_jobs.storage import open_storage
from ray_jobs.train import before_after
from ray_jobs.train.before_after import Part, measured, missing
from ray_jobs.train.checkpoints import Checkpoint
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.plan import Plan
from ray_jobs.train.tune.objective import judged

# The libraries' own, of training in this process.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Importing from 'sentence_transformers:DeprecationWarning"),
]

QA = pa.schema(
    [
        ("question", pa.string()),
        ("passage", pa.string()),
        ("answers", pa.list_(pa.string())),
        ("starts", pa.list_(pa.int32())),
    ]
)
LORA = {"lora": {"rank": 4}}
WHOLE: dict[str, Any] = {}
METRICS = {
    "sft": ["perplexity", "token_kl"],
    "dpo": ["perplexity", "token_kl", "reward_accuracy"],
    "kto": ["perplexity", "token_kl", "unwanted_ppl"],
    "embedder": ["ndcg@10"],
    "reranker": ["ndcg@10"],
    "reader": ["f1", "exact_match"],
}
CHECKPOINT = Checkpoint(
    key="k", step=1, workers=1, engine="ddp", stage=0, metric=None, metrics={}, method="sft", base_revision="b",
    data_hash="d", files={},
)  # fmt: skip


def questions(folder: Path) -> Path:
    chance = random.Random(3)

    def row() -> dict[str, Any]:
        words = chance.sample(WORDS, 6)
        return {
            "question": words[0],
            "passage": " ".join(words),
            "answers": [words[1]],
            "starts": [len(words[0]) + 1],
        }

    rows = {split: [row() for _ in range(count)] for split, count in (("train", 16), ("validation", 4), ("test", 4))}
    return train_bases.prepared(folder, rows, QA)


def base_and_data(folder: Path, method: str) -> tuple[Path, Path]:
    if method in ("sft", "dpo", "kto"):
        make = {"sft": train_bases.conversations, "dpo": train_bases.preferences, "kto": train_bases.labelled}[method]
        return train_bases.language_model(folder / "base"), make(folder / "data")
    if method == "reader":
        return tiny_readers.plain(folder), questions(folder / "data")
    data = train_bases.retrieval(folder / "data")
    base = train_bases.embedder(folder / "base") if method == "embedder" else train_bases.encoder(folder / "base")
    return base, data


def trained(folder: Path, method: str, changes: dict[str, Any]) -> TrainConfig:
    """A run of two steps, which changes the model and teaches it nothing."""
    base, data = base_and_data(folder, method)
    asked = {"evaluation": {"test": True, "retained": {"old": str(data)}, "samples": 2}}
    steps = {"optimisation": {"max_steps": 2, "learning_rate": 0.05}, "checkpoints": {"every_steps": 2}}
    found = settings(method, base, data, folder / "store", method, **steps, **asked, **changes)
    train(found)
    return found


def parts(config: TrainConfig) -> list[Part]:
    plan = plan_of(config)
    sets = before_after._sets(config, plan.train, open_storage(config.store))
    return list(measured(plan, sets, checkpoints(config)[-1]))


def check_measured(tmp_path: Path, method: str, changes: dict[str, Any]) -> None:
    config = trained(tmp_path, method, changes)
    target, retained = parts(config)
    assert [row["metric"] for row in target.rows] == METRICS[method]
    assert [(row["set"], row["role"]) for row in target.rows] == [("test", "target")] * len(target.rows)
    assert [(row["set"], row["role"]) for row in retained.rows] == [("old", "retained")] * len(retained.rows)
    assert 1 <= len(target.samples) <= 2
    assert retained.samples == []
    if method in ("sft", "dpo", "kto"):
        assert target.rows[1]["after"] > 0, "the tuned model is the base"


@pytest.mark.parametrize(
    ("method", "changes"), [("dpo", LORA), ("embedder", LORA), ("reranker", WHOLE), ("reader", LORA)]
)
def test_what_a_method_trains_is_measured(tmp_path: Path, method: str, changes: dict[str, Any]) -> None:
    check_measured(tmp_path, method, changes)


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("sft", LORA),
        ("sft", WHOLE),
        ("dpo", WHOLE),
        ("kto", LORA),
        ("kto", WHOLE),
        ("embedder", WHOLE),
        ("reranker", LORA),
        ("reader", WHOLE),
    ],
)
def test_what_every_other_method_trains_is_measured(tmp_path: Path, method: str, changes: dict[str, Any]) -> None:
    check_measured(tmp_path, method, changes)


def test_what_is_asked_otherwise_is_measured_anew(tmp_path: Path) -> None:
    data = train_bases.conversations(tmp_path / "data")
    base = train_bases.language_model(tmp_path / "base")
    config = settings("sft", base, data, tmp_path / "store", "model", evaluation={"test": True})
    storage, plan = open_storage(config.store), plan_of(config)
    assert missing(plan, storage, CHECKPOINT)
    asked = before_after._asked(plan, storage, CHECKPOINT)
    storage.create(f"{plan.run}/evaluation.json", json.dumps({"asked": asked, "rows": [], "skipped": []}).encode())
    assert not missing(plan, storage, CHECKPOINT)
    assert missing(plan, storage, CHECKPOINT.model_copy(update={"key": "other"}))
    more = settings("sft", base, data, tmp_path / "store", "model", evaluation={"test": True, "limit": 2})
    assert missing(plan_of(more), storage, CHECKPOINT)
    none = settings("sft", base, data, tmp_path / "store", "model", evaluation={"test": False})
    assert not missing(plan_of(none), storage, CHECKPOINT)


def test_what_chose_between_runs_was_measured_on_validation_rows_and_the_chosen_run_is_on_test_rows(
    tmp_path: Path,
) -> None:
    data = train_bases.conversations(tmp_path / "data")
    base = train_bases.language_model(tmp_path / "base")
    evaluation = {"test": True, "retained": {"old": str(data), "file": str(data / "train.parquet")}}
    config = settings("sft", base, train_bases.conversations(tmp_path / "own"), tmp_path / "store", "model",
                      evaluation=evaluation)  # fmt: skip
    chosen, trial = plan_of(config), plan_of(judged(config, by_evaluation=True))
    storage = open_storage(config.store)
    assert trial.run == chosen.run

    def measured_on(plan: Plan) -> list[tuple[str, str]]:
        return [(file.title, Path(file.place).stem) for _, file in before_after._sets(plan.config, plan.train, storage)]

    assert measured_on(trial) == [("validation", "validation"), ("old (validation)", "validation"), ("file", "train")]
    assert measured_on(chosen) == [("test", "test"), ("old", "test"), ("file", "train")]
    found = {"asked": before_after._asked(trial, storage, CHECKPOINT), "rows": [], "skipped": []}
    storage.create(f"{trial.run}/evaluation.json", json.dumps(found).encode())
    assert not missing(trial, storage, CHECKPOINT)
    assert missing(chosen, storage, CHECKPOINT)


@pytest.mark.parametrize(("split", "has", "title"), [
    ("validation", "test", "old"), ("test", "validation", "old (validation)")
])  # fmt: skip
def test_a_retained_set_with_one_held_out_split_is_measured_on_that(
    tmp_path: Path, split: str, has: str, title: str
) -> None:
    rows = {has: [{"prompt": "ant", "completion": " bee"}]}
    old = train_bases.prepared(tmp_path / "old", rows, train_bases.COMPLETION)
    evaluation = {"split": split, "retained": {"old": str(old)}}
    config = settings("sft", tmp_path, tmp_path, tmp_path / "store", "model", evaluation=evaluation)
    assert [file.title for file in before_after.retained(config, open_storage(config.store))] == [title]
