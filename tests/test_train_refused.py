"""Bases, splits and rows that methods refuse before the first step, with what to do."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import tiny_language_models
import train_bases
from evaluation_tasks import task
from tiny_rerankers import WORDS

from ray_jobs.errors import ModelError, UsageError
from ray_jobs.train.methods import method_of


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_language_models.word_tokenizer([*WORDS, *(f" {word}" for word in WORDS)])


@pytest.fixture(scope="module")
def chat_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_bases.language_model(tmp_path_factory.mktemp("chat"))


def test_packed_rows_that_are_fewer_than_a_step_are_refused_and_not_learned_again_and_again(
    tmp_path: Path, chat_base: Path
) -> None:
    data = train_bases.conversations(tmp_path / "data", train=32)
    packed = {"sequence": {"packing": True, "max_length": 128}, "optimisation": {"global_batch": 16, "micro_batch": 4}}
    with pytest.raises(
        UsageError, match=r"packed into \d to learn from, fewer than optimisation.global_batch=16; lower it, leave se"
    ):
        method_of("sft").trainer(task(tmp_path, "sft", chat_base, data, **packed))


def test_a_base_without_a_chat_template_is_refused_with_what_to_do(tmp_path: Path) -> None:
    base = train_bases.language_model(tmp_path / "base", chat=False)
    with pytest.raises(UsageError, match=r"has no chat template, and the rows are conversations; choose a base"):
        method_of("sft").trainer(task(tmp_path, "sft", base, train_bases.conversations(tmp_path / "data")))


@pytest.mark.parametrize(
    ("train", "validation", "named"),
    [
        (0, 8, "0 training rows are fewer than optimisation.global_batch=8"),
        (5, 8, "5 training rows are fewer than optimisation.global_batch=8"),
        (8, 0, "the validation split is empty"),
    ],
)
def test_splits_that_are_too_small_are_refused(
    tmp_path: Path, chat_base: Path, train: int, validation: int, named: str
) -> None:
    data = train_bases.conversations(tmp_path / "data", train, validation)
    with pytest.raises(UsageError, match=named):
        method_of("sft").trainer(task(tmp_path, "sft", chat_base, data))


def test_rows_of_another_kind_are_refused(tmp_path: Path, chat_base: Path) -> None:
    data = train_bases.retrieval(tmp_path / "data")
    with pytest.raises(UsageError, match=r"method=sft with data=.* of kind retrieval, expected messages or completion"):
        method_of("sft").trainer(task(tmp_path, "sft", chat_base, data))


def test_splits_of_two_kinds_are_refused(tmp_path: Path, chat_base: Path) -> None:
    data, other = train_bases.conversations(tmp_path / "data"), train_bases.completions(tmp_path / "other")
    (other / "validation.parquet").replace(data / "validation.parquet")
    with pytest.raises(UsageError, match=r"training rows are of kind messages and its validation rows .* completion"):
        method_of("sft").trainer(task(tmp_path, "sft", chat_base, data))


def test_rows_longer_than_the_base_takes_are_refused(tmp_path: Path, chat_base: Path) -> None:
    data = train_bases.conversations(tmp_path / "data")
    asked = task(tmp_path, "sft", chat_base, data, sequence={"max_length": 129})
    with pytest.raises(UsageError, match=r"sequence.max_length=129 is above the 128 positions"):
        method_of("sft").trainer(asked)


@pytest.mark.parametrize(("method", "make"), [("embedder", train_bases.embedder), ("reranker", train_bases.encoder)])
def test_texts_longer_than_an_encoder_takes_are_refused(tmp_path: Path, method: str, make: Any) -> None:
    data = train_bases.retrieval(tmp_path / "data")
    asked = task(tmp_path, method, make(tmp_path / "base"), data, sequence={"max_length": 5000})
    with pytest.raises(UsageError, match=r"sequence.max_length=5000 is above the \d+ positions of base="):
        method_of(method).trainer(asked)


def test_a_split_that_is_no_parquet_file_is_refused(tmp_path: Path, chat_base: Path) -> None:
    data = train_bases.conversations(tmp_path / "data")
    (data / "validation.parquet").write_text('{"messages": []}\n')
    with pytest.raises(UsageError, match=r"validation.parquet' is no Parquet file of rows .*; prepare other files"):
        method_of("sft").trainer(task(tmp_path, "sft", chat_base, data))


def test_a_length_that_leaves_nothing_to_learn_is_refused(tmp_path: Path, chat_base: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "ant " * 9}, {"role": "assistant", "content": "bee"}]}] * 8
    data = train_bases.prepared(tmp_path / "data", {"train": rows, "validation": rows}, train_bases.MESSAGES)
    asked = task(tmp_path, "sft", chat_base, data, sequence={"max_length": 8})
    with pytest.raises(UsageError, match=r"keeps anything to learn within 8 tokens"):
        method_of("sft").trainer(asked)


def test_labels_that_are_all_equal_are_refused(tmp_path: Path, chat_base: Path) -> None:
    rows = [{"prompt": "ant", "completion": " bee", "label": True}] * 8
    data = train_bases.prepared(tmp_path / "data", {"train": rows, "validation": rows}, train_bases.LABEL)
    with pytest.raises(UsageError, match=r"every training row has label=True"):
        method_of("kto").trainer(task(tmp_path, "kto", chat_base, data))


def test_a_reranker_without_negatives_is_refused(tmp_path: Path) -> None:
    rows = [{"query": "ant", "positive": "bee", "negatives": [], "positive_id": None, "negative_ids": []}] * 8
    data = train_bases.prepared(tmp_path / "data", {"train": rows, "validation": rows}, train_bases.RETRIEVAL)
    with pytest.raises(UsageError, match=r"no training row has a negative, so that all labels are equal"):
        method_of("reranker").trainer(task(tmp_path, "reranker", train_bases.encoder(tmp_path / "base"), data))


@pytest.mark.parametrize("loss", ["lambda", "bce"])
def test_only_lists_need_a_negative_in_the_validation_split(tmp_path: Path, loss: str) -> None:
    data = train_bases.retrieval(tmp_path / "data")
    rows = [{"query": "ant", "positive": "bee", "negatives": []}]
    bare = train_bases.prepared(tmp_path / "bare", {"validation": rows}, train_bases.RETRIEVAL)
    (bare / "validation.parquet").replace(data / "validation.parquet")
    asked = task(tmp_path, "reranker", train_bases.encoder(tmp_path / "base"), data, reranker={"loss": loss})
    if loss == "bce":
        assert len(method_of("reranker").trainer(asked).eval_dataset) == 1
        return
    with pytest.raises(UsageError, match=r"reranker.loss=lambda with data=.*: no validation row has a negative"):
        method_of("reranker").trainer(asked)


def test_passages_that_are_all_equal_are_refused(tmp_path: Path) -> None:
    row = {"positive": "bee", "negatives": [], "positive_id": None, "negative_ids": []}
    rows = [{"query": word, **row} for word in WORDS[:8]]
    data = train_bases.prepared(tmp_path / "data", {"train": rows, "validation": rows}, train_bases.RETRIEVAL)
    with pytest.raises(UsageError, match=r"every training row has the same positive"):
        method_of("embedder").trainer(task(tmp_path, "embedder", train_bases.embedder(tmp_path / "base"), data))


def test_a_quantised_base_without_its_library_or_a_gpu_is_refused(tmp_path: Path, chat_base: Path) -> None:
    asked = task(tmp_path, "sft", chat_base, train_bases.conversations(tmp_path / "data"), lora={"quantise": "4bit"})
    with pytest.raises(UsageError, match=r"lora.quantise=4bit: needs a GPU and the package bitsandbytes \(pip install"):
        method_of("sft").trainer(asked)


def test_a_base_whose_tokeniser_has_no_end_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    data = train_bases.conversations(tmp_path / "data")
    base = train_bases.language_model(tmp_path / "base")
    endless = copy.deepcopy(tokenizer)
    endless.eos_token = None
    endless.save_pretrained(base)
    with pytest.raises(ModelError, match=r"its tokeniser has no end-of-text token"):
        method_of("sft").trainer(task(tmp_path, "sft", base, data))


@pytest.mark.parametrize("method", ["sft", "dpo", "kto"])
def test_a_base_that_fills_gaps_is_no_language_model(tmp_path: Path, tokenizer: Any, method: str) -> None:
    from transformers import RobertaConfig, RobertaForMaskedLM

    shape = {"vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    filler = RobertaForMaskedLM(RobertaConfig(**shape, num_hidden_layers=1))
    base = tiny_language_models.save(tmp_path / "base", filler, tokenizer)
    rows = {"sft": train_bases.conversations, "dpo": train_bases.preferences, "kto": train_bases.labelled}
    asked = task(tmp_path, method, base, rows[method](tmp_path / "data"))
    with pytest.raises(ModelError, match=rf"the architecture RobertaForMaskedLM, and method={method} trains causal"):
        method_of(method).trainer(asked)
