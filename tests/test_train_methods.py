"""What methods make of rows; no workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_language_models
import train_bases
from evaluation_tasks import task
from tiny_rerankers import WORDS

from ray_jobs.errors import UsageError
from ray_jobs.models.resolve import resolve
from ray_jobs.models.sentence_model import describe, load_sentence_model
from ray_jobs.train.methods import KINDS, METHODS, kind_of, method_of
from ray_jobs.train.methods.embedder import contrasted
from ray_jobs.train.methods.reranker import lists, pairs
from ray_jobs.train.methods.sft import tokenised


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_language_models.word_tokenizer([*WORDS, *(f" {word}" for word in WORDS)])


def test_rows_that_keep_nothing_to_learn_are_left_out(tokenizer: Any) -> None:
    make = tokenised(tokenizer, "completion", True, 3)
    found = make({"prompt": ["ant bee cat dog", "ant"], "completion": [" elk", " fox"]})
    assert [tokenizer.decode(ids) for ids in found["input_ids"]] == ["ant fox<|end|>"]


def test_a_pair_is_right_or_wrong_and_negatives_are_as_many_as_asked() -> None:
    rows = {"query": ["q", "r"], "positive": ["p", "s"], "negatives": [["a", "b", "c"], None]}
    assert pairs(2)(rows) == {
        "query": ["q", "q", "q", "r"],
        "passage": ["p", "a", "b", "s"],
        "label": [1.0, 0.0, 0.0, 1.0],
    }


def test_a_list_begins_with_the_right_passage_and_rows_without_wrong_ones_go() -> None:
    rows = {"query": ["q", "r"], "positive": ["p", "s"], "negatives": [["a", "b", "c"], []]}
    assert lists(2)(rows) == {"query": ["q"], "passages": [["p", "a", "b"]], "labels": [[1.0, 0.0, 0.0]]}


def test_hard_negatives_are_columns_and_a_row_without_any_gets_another_rows_passage() -> None:
    rows = {"query": ["q", "r", "t"], "positive": ["p", "s", "u"], "negatives": [["a", "b", "c"], ["d"], None]}
    found = contrasted(2, seed=0)(rows)
    assert list(found) == ["anchor", "positive", "negative_1", "negative_2"]
    assert (found["negative_1"][:2], found["negative_2"][:2]) == (["a", "d"], ["b", "d"])
    assert {found["negative_1"][2], found["negative_2"][2]} <= {"p", "s"}


def test_an_embedder_compares_queries_with_passages_and_not_the_other_way_round(tmp_path: Path) -> None:
    data, base = train_bases.retrieval(tmp_path / "data"), train_bases.embedder(tmp_path / "base")
    trainer = method_of("embedder").trainer(task(tmp_path, "embedder", base, data))
    for rows in (trainer.train_dataset, trainer.eval_dataset):
        assert rows.column_names == ["anchor", "positive", "negative_1"]
        # The losses take the first column for the query; here the query is the shorter text.
        assert all(len(text.split()) == 2 for text in rows["anchor"])


@pytest.mark.parametrize("prompts", [{"query": "ant ", "passage": "bee "}, {"query": "ant ", "document": "bee "}])
def test_an_embedder_is_trained_with_the_prompts_of_ingest_and_search(tmp_path: Path, prompts: dict[str, str]) -> None:
    base = train_bases.embedder(tmp_path / "base", prompts=prompts)
    trainer = method_of("embedder").trainer(task(tmp_path, "embedder", base, train_bases.retrieval(tmp_path / "data")))
    used = describe(load_sentence_model(resolve(str(base)), "cpu"), "base")
    columns = ("anchor", "positive", "negative_1")
    expected = (used.query_prompt, used.document_prompt, used.document_prompt)
    assert tuple(trainer.args.prompts.get(column, "") for column in columns) == expected


@pytest.mark.parametrize("method", ["embedder", "reranker"])
def test_a_base_stored_in_bfloat16_is_trained_in_float32(tmp_path: Path, method: str) -> None:
    data = train_bases.retrieval(tmp_path / "data")
    base = train_bases.as_bfloat16(train_bases.encoder(tmp_path / "whole"), tmp_path / "base")
    trainer = method_of(method).trainer(task(tmp_path, method, base, data))
    assert {str(weight.dtype) for weight in trainer.model.parameters()} == {"torch.float32"}


def test_kinds_are_told_by_their_columns() -> None:
    common = {"id", "source", "row", "input"}
    assert all(kind_of(frozenset(common | columns), Path("x")) == kind for kind, columns in KINDS.items())
    with pytest.raises(UsageError, match=r"expected prepared data"):
        kind_of(frozenset({"text"}), Path("x"))


def test_every_method_is_found_by_its_name() -> None:
    assert [method_of(name).name for name in METHODS] == list(METHODS)
    with pytest.raises(UsageError, match=r"method=poem: not available"):
        method_of("poem")
