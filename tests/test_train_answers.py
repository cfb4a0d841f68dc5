"""Preferences as tokens: what is trained on is what the base's chat template gives, and what judges measure."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import tiny_language_models
import train_bases
from evaluation_tasks import columns, task
from tiny_rerankers import WORDS
from train_runs import outcome, settings, train_alone

from ray_jobs.train.evaluation.language import LanguageJudge
from ray_jobs.train.methods import method_of
from ray_jobs.train.methods.answers import tokenised
from ray_jobs.train.methods.kto import beside_neighbours

ANSWERS = {"dpo": ("chosen", "rejected"), "kto": ("completion",)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, answers to conversations and to texts, and answers to texts as they were prepared earlier."""
    made = tmp_path_factory.mktemp("answers")
    train_bases.language_model(made / "base")
    asked_preferences(made / "dpo", train_bases.ASKED_PREFERENCE)
    asked_preferences(made / "kto", train_bases.ASKED_LABEL)
    train_bases.preferences(made / "earlier", train=16)
    return made


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_language_models.word_tokenizer([*WORDS, *(f" {word}" for word in WORDS)])


def asked_preferences(folder: Path, schema: pa.Schema) -> None:
    chance = random.Random(1)

    def row(number: int) -> dict[str, Any]:
        first, second, third, good, bad = chance.sample(WORDS, 5)
        messages = [
            {"role": "user", "content": first},
            {"role": "assistant", "content": second},
            {"role": "user", "content": third},
        ]
        answers = {"chosen": good, "rejected": bad, "completion": good, "label": number % 2 == 0}
        return {"prompt": first, "prompt_messages": messages if number % 4 else None, **answers}

    rows = {"train": [row(n) for n in range(16)], "validation": [row(n) for n in range(8)]}
    named = {name: [{key: of[key] for key in schema.names} for of in split] for name, split in rows.items()}
    train_bases.prepared(folder, named, schema)


def expected(tokenizer: Any, row: dict[str, Any], answer: str) -> tuple[list[int], list[int]]:
    """The tokens of prompt and answer, the plain way."""
    if row["prompt_messages"] is None:
        return tokenizer(row["prompt"])["input_ids"], [*tokenizer(answer)["input_ids"], tokenizer.eos_token_id]
    prompt = tokenizer.apply_chat_template(row["prompt_messages"], add_generation_prompt=True)["input_ids"]
    told = [*row["prompt_messages"], {"role": "assistant", "content": answer}]
    whole = tokenizer.apply_chat_template(told)["input_ids"]
    assert whole[: len(prompt)] == prompt
    return prompt, whole[len(prompt) :]


def rows_of(file: Path) -> list[dict[str, Any]]:
    found = columns(file)
    return [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_an_answer_to_a_conversation_has_the_tokens_of_the_chat_template(
    folder: Path, tmp_path: Path, tokenizer: Any, method: str
) -> None:
    trainer = method_of(method).trainer(task(tmp_path, method, folder / "base", folder / method))
    found = list(trainer.eval_dataset)
    for row, made in zip(rows_of(folder / method / "validation.parquet"), found, strict=True):
        for name in ANSWERS[method]:
            assert (made["prompt_ids"], made[f"{name}_ids"]) == expected(tokenizer, row, row[name])
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["input_ids"].shape[0] == (4 if method == "dpo" else 2)


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_answers_to_conversations_are_learned(folder: Path, tmp_path: Path, method: str) -> None:
    short = {"max_steps": 2}
    config = settings(method, folder / "base", folder / method, tmp_path / "store", "m", optimisation=short)
    found = outcome(train_alone(config))
    assert all(math.isfinite(entry["loss"]) for entry in found["history"] if "loss" in entry)
    assert found["rows"]["train"]["rows"] == 16


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_judges_measure_the_tokens_that_are_trained_on(folder: Path, tmp_path: Path, method: str) -> None:
    asked = task(tmp_path, method, folder / "base", folder / method)
    made = list(method_of(method).trainer(asked).eval_dataset)
    judge = LanguageJudge(asked, folder / "base")
    rows = columns(folder / method / "validation.parquet")
    for name in ANSWERS[method]:
        ids = [example[0] for example in judge._answers(rows, name)]
        assert ids == [row["prompt_ids"] + row[f"{name}_ids"] for row in made]


def test_data_prepared_without_conversations_are_trained_on_as_texts(
    folder: Path, tmp_path: Path, tokenizer: Any
) -> None:
    trainer = method_of("dpo").trainer(task(tmp_path, "dpo", folder / "base", folder / "earlier"))
    for row, made in zip(rows_of(folder / "earlier" / "validation.parquet"), trainer.eval_dataset, strict=True):
        assert made["prompt_ids"] == tokenizer(row["prompt"])["input_ids"]


@pytest.mark.parametrize(("new", "old"), [("dpo", "earlier"), ("earlier", "dpo")])
def test_earlier_and_newer_data_are_mixed(folder: Path, new: str, old: str) -> None:
    from datasets import Dataset

    from ray_jobs.train.methods.rows import mixed

    own, other = (Dataset.from_parquet(str(folder / name / "train.parquet")) for name in (new, old))
    found = mixed(own, other, "preference", 0.5, 0)
    asked = [row["prompt_messages"] is not None for row in found]
    assert (len(asked), sum(asked)) == (32, 12)


def test_prompts_that_leave_no_room_go_and_longer_answers_are_counted(tokenizer: Any) -> None:
    rows = {"prompt": ["ant bee", "ant bee cat", "ant"], "completion": [" cat dog", " dog", " dog"], "label": [1, 0, 1]}
    found = tokenised(tokenizer, ("completion",), 3)(rows)
    assert [tokenizer.decode(ids) for ids in found["prompt_ids"]] == ["ant bee", "ant"]
    assert (found["label"], found["cut"]) == ([1, 1], [True, False])


def test_each_row_stands_beside_the_answer_of_the_one_before_it() -> None:
    rows = [{"prompt_ids": [n], "completion_ids": [n, n]} for n in range(3)]
    found = beside_neighbours(list)(rows)
    assert [row["KL_completion_ids"] for row in found] == [[2, 2], [0, 0], [1, 1]]
