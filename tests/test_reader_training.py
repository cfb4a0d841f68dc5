"""The method `reader`: a trainer of transformers that learns to find answers and to refuse."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluation_tasks import columns
from tiny_readers import examples, network, reader, tokenizer
from tiny_transformers import save, words_that_look_for_themselves

from ray_jobs.errors import ModelError, UsageError
from ray_jobs.models.reader_evaluation import Reading, judge
from ray_jobs.models.resolve import content_revision
from ray_jobs.train.batches import plan
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.fit import explained
from ray_jobs.train.methods import Place, Splits, Task, method_of
from ray_jobs.train.span_targets import QuestionRow, rows_of

STEPS = 250
QUIET = {"initializer_range": 0.1, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared rows, and an encoder without a span head."""
    made = tmp_path_factory.mktemp("training")
    chance = random.Random(3)
    write(made / "train.parquet", rows(chance, 2000))
    write(made / "validation.parquet", rows(chance, 200))
    save(words_that_look_for_themselves(network(**QUIET)).bert, tokenizer(), made / "base")
    return made


def rows(chance: random.Random, count: int) -> list[QuestionRow]:
    pairs, places = examples(chance, count)
    found = []
    for (question, passage), place in zip(pairs, places, strict=True):
        before = passage.split()[: place - 2 - len(question.split())]
        word = passage.split()[len(before)]
        start = len(" ".join(before)) + bool(before)
        found.append(
            QuestionRow(question, passage, (word,), (start,)) if place else QuestionRow(question, passage, (), ())
        )
    return found


def write(file: Path, rows: list[QuestionRow]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("question", pa.string()),
            ("passage", pa.string()),
            ("answers", pa.list_(pa.string())),
            ("starts", pa.list_(pa.int32())),
        ]
    )
    table = pa.table([[getattr(row, name) for row in rows] for name in schema.names], schema=schema)
    pq.write_table(table, file)


def at_once(work: Callable[[], object]) -> None:
    work()


def task(folder: Path, output: Path, base: Path | None = None, train: Path | None = None, **changes: Any) -> Task:
    optimisation = {"learning_rate": 2e-3, "global_batch": 32, "micro_batch": 32, "max_steps": STEPS}
    settings = {
        "method": "reader",
        "base": str(base or folder / "base"),
        "data": "finding",
        "name": "finder",
        "optimisation": optimisation | changes.pop("optimisation", {}),
        "checkpoints": {"every_steps": 1000},
        "reader": {"stride": 8, "max_answer_tokens": 4},
    }
    return Task(
        config=TrainConfig.model_validate(settings | changes),
        base=base or folder / "base",
        base_revision=content_revision(base or folder / "base"),
        splits=Splits(train or folder / "train.parquet", folder / "validation.parquet", str(train), output / "cache"),
        output=output / "run",
        batches=plan(32, 32, 1),
        place=Place("cpu", "float32", 0, 1, at_once),
        deepspeed=None,
    )


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, float], dict[str, float], Path]:
    """What was measured before and after, and the folder of the model."""
    output = tmp_path_factory.mktemp("trained")
    trainer = method_of("reader").trainer(task(folder, output))
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    trainer.save_model(str(output / "model"))
    return before, after, output / "model"


def test_it_learns_to_find_answers_and_to_refuse(trained: tuple[dict[str, float], dict[str, float], Path]) -> None:
    before, after, _ = trained
    assert after["eval_loss"] < before["eval_loss"] / 4
    assert before["eval_f1"] < 0.5
    assert after["eval_f1"] > 0.9
    assert after["eval_exact_match"] > 0.9
    assert after["eval_refused"] > 0.9
    assert after["eval_answered"] >= 0.8


def test_what_was_trained_reads_as_it_was_judged(
    folder: Path, trained: tuple[dict[str, float], dict[str, float], Path]
) -> None:
    _, after, model = trained
    found = reader(model, overlap=8, max_answer_tokens=4)
    asked = rows_of(columns(folder / "validation.parquet"))
    spans = found.read_pairs([(row.question, row.passage) for row in asked])
    quality = judge([Reading(row.passage, row.answers, span) for row, span in zip(asked, spans, strict=True)])
    assert quality.f1 == pytest.approx(after["eval_f1"])
    assert quality.exact_match == pytest.approx(after["eval_exact_match"])
    assert quality.refused == pytest.approx(after["eval_refused"])
    assert quality.threshold == pytest.approx(after["eval_threshold"], abs=1e-3)


def test_an_adapter_keeps_its_head_whole_and_is_read_from_its_folder(folder: Path, tmp_path: Path) -> None:
    from peft import load_peft_weights

    short = task(folder, tmp_path, lora={"rank": 4}, optimisation={"max_steps": 3}, sequence={"max_length": 48})
    trainer = method_of("reader").trainer(short)
    trainer.train()
    measured = trainer.evaluate()
    trainer.save_model(str(tmp_path / "model"))
    weights = load_peft_weights(str(tmp_path / "model"), device="cpu")
    assert {name for name in weights if "qa_outputs" in name} == {
        "base_model.model.qa_outputs.weight",
        "base_model.model.qa_outputs.bias",
    }
    assert all(weight.numel() for weight in weights.values())
    found = reader(tmp_path / "model", overlap=8, max_answer_tokens=4)
    assert found.max_tokens == 48
    asked = rows_of(columns(folder / "validation.parquet"))
    spans = found.read_pairs([(row.question, row.passage) for row in asked])
    quality = judge([Reading(row.passage, row.answers, span) for row, span in zip(asked, spans, strict=True)])
    assert quality.f1 == pytest.approx(measured["eval_f1"], abs=0.02)


def test_an_adapter_learns_with_all_that_it_is_read_with(folder: Path, tmp_path: Path) -> None:
    # Before the first step an adapter changes nothing: with the same seed both networks must say the same, segments
    # included, to which this base attends.
    plain, adapted = (
        method_of("reader").trainer(task(folder, tmp_path / name, lora=lora)).evaluate()
        for name, lora in (("plain", None), ("adapted", {"rank": 4}))
    )
    assert adapted["eval_loss"] == pytest.approx(plain["eval_loss"], rel=1e-5)
    assert adapted["eval_f1"] == pytest.approx(plain["eval_f1"])


def test_validation_rows_without_any_answer_are_refused_before_anything_is_learned(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "train.parquet").symlink_to(folder / "train.parquet")
    write(tmp_path / "validation.parquet", [QuestionRow("cat", "the dog", (), ())] * 4)
    asked = task(folder, tmp_path)
    splits = dataclasses.replace(asked.splits, validation=tmp_path / "validation.parquet")
    with pytest.raises(UsageError, match="no validation row has an answer"):
        method_of("reader").trainer(dataclasses.replace(asked, splits=splits))


def test_rows_without_any_answer_are_refused(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "none.parquet", [QuestionRow("cat", "the dog", (), ())] * 40)
    with pytest.raises(UsageError, match="no training row has an answer"):
        method_of("reader").trainer(task(folder, tmp_path, train=tmp_path / "none.parquet"))


def test_windows_longer_than_the_base_allows_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"sequence\.max_length=100 is above the 80 positions"):
        method_of("reader").trainer(task(folder, tmp_path, sequence={"max_length": 100}))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_questions_that_fill_every_window_are_refused(folder: Path, tmp_path: Path, split: str) -> None:
    write(tmp_path / "long.parquet", [QuestionRow("cat " * 20, "the dog", ("dog",), (4,))] * 40)
    asked = task(folder, tmp_path, sequence={"max_length": 16})
    splits = dataclasses.replace(asked.splits, **{split: tmp_path / "long.parquet"})
    with pytest.raises(UsageError, match=rf"no question of {split} leaves room for a passage within 16 tokens; raise"):
        method_of("reader").trainer(dataclasses.replace(asked, splits=splits))


def test_a_base_that_can_have_no_span_head_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    settings = {"vocab_size": 99, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1}
    base = save(CLIPTextModel(CLIPTextConfig(**settings, num_hidden_layers=1)), tokenizer(), tmp_path / "other")
    asked = task(folder, tmp_path, base=base)
    with pytest.raises(ModelError, match="choose an encoder that can have a span head") as caught, explained(asked):
        method_of("reader").trainer(asked)
    assert "\n" not in str(caught.value)
