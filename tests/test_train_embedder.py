"""The trainer of embedders: a row's negatives, if it has any, which rows meet, and what an adapter leaves as it is."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import train_bases
from evaluation_tasks import task
from tiny_rerankers import WORDS

from ray_jobs.errors import UsageError
from ray_jobs.models import merging
from ray_jobs.models.adapter import AdaptedModel
from ray_jobs.models.resolve import ResolvedModel, resolve
from ray_jobs.train.batches import Batches
from ray_jobs.train.evaluation.ranking import queries_of
from ray_jobs.train.methods import method_of
from ray_jobs.train.methods.embedder import contrasted
from ray_jobs.train.methods.reranker import lists, pairs
from ray_jobs.train.methods.rows import list_lengths, text_hashes

MICRO = 4
TEXTS = ["the owl sees the dog", "cat bee", "ant"]


def row(query: str, positive: str, *negatives: str) -> dict[str, Any]:
    return {"query": query, "positive": positive, "negatives": list(negatives)}


def several_positives(queries: int, positives: int = 3) -> list[dict[str, Any]]:
    """Rows of queries that each have several passages side by side, each mined as a negative of another query too."""
    return [
        row(f"q{query}", f"p{query}-{n}", f"p{(query + 7) % queries}-{n}")
        for query in range(queries)
        for n in range(positives)
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_bases.embedder(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = {"train": several_positives(40), "validation": several_positives(20)}
    return train_bases.prepared(tmp_path_factory.mktemp("data"), rows, train_bases.RETRIEVAL)


def of_four(tmp_path: Path, base: Path, data: Path, **changes: Any) -> Any:
    sizes = {"micro_batch": MICRO, "global_batch": 8, "max_steps": 15}
    return task(tmp_path, "embedder", base, data, **{"optimisation": sizes, **changes})


def texts_of(rows: Any) -> list[tuple[str, ...]]:
    return list(zip(*(rows[column] for column in rows.column_names), strict=True))


def test_no_text_meets_itself_in_a_micro_batch_of_training_or_of_validation(
    tmp_path: Path, base: Path, data: Path
) -> None:
    trainer = method_of("embedder").trainer(of_four(tmp_path, base, data))
    assert len(trainer.eval_dataset) == 60
    for rows in (trainer.train_dataset, trainer.eval_dataset):
        texts = texts_of(rows)
        for start in range(0, len(texts), MICRO):
            counted = Counter(text for own in texts[start : start + MICRO] for text in set(own))
            assert max(counted.values()) == 1, texts[start : start + MICRO]
    assert Counter(texts_of(trainer.train_dataset)) == Counter(
        (one["query"], one["positive"], one["negatives"][0]) for one in several_positives(40)
    )


def test_any_number_of_workers_has_the_same_micro_batches(tmp_path: Path, base: Path, data: Path) -> None:
    one = of_four(tmp_path, base, data)
    two = replace(one, batches=Batches(MICRO, 1, 2))
    first, second = (method_of("embedder").trainer(each) for each in (one, two))
    assert texts_of(first.train_dataset) == texts_of(second.train_dataset)
    assert texts_of(first.eval_dataset) == texts_of(second.eval_dataset)


def test_a_passage_that_another_row_calls_right_for_the_query_is_no_negative_of_it() -> None:
    rows = [row("q", "a", "b", "x"), row("q", "b"), row("r", "c", "c"), *(row(f"s{n}", f"d{n}") for n in range(9))]
    given = {column: [one[column] for one in rows] for column in rows[0]}
    for seed in range(20):
        found = contrasted(2, seed)(given)
        negatives = list(zip(found["negative_1"], found["negative_2"], strict=True))
        assert negatives[0] == ("x", "x")
        assert not {"a", "b"} & set(negatives[1])
        assert "c" not in negatives[2]


def test_rows_that_all_ask_the_same_still_have_a_negative() -> None:
    assert contrasted(1, 0)({"query": ["q"], "positive": ["p"], "negatives": [None]})["negative_1"] == ["p"]


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.null()], ids=["some null", "all null"])
@pytest.mark.parametrize("method", ["embedder", "reranker"])
def test_null_in_place_of_negatives_means_none(tmp_path: Path, base: Path, kind: pa.DataType, method: str) -> None:
    rows = [{"query": word, "positive": f"{word} bee", "negatives": None} for word in WORDS[:8]]
    if not pa.types.is_null(kind):
        rows[3]["negatives"] = ["cat"]
    schema = pa.schema([("query", pa.string()), ("positive", pa.string()), ("negatives", kind)])
    data = train_bases.prepared(tmp_path / "data", {"train": rows, "validation": rows}, schema)
    asked = task(tmp_path, method, base if method == "embedder" else base.parent / "bare", data)
    if method == "reranker" and pa.types.is_null(kind):
        with pytest.raises(UsageError, match=r"no training row has a negative"):
            method_of(method).trainer(asked)
        return
    trainer = method_of(method).trainer(asked)
    count = {"embedder": 8, "reranker": 8 + (not pa.types.is_null(kind))}[method]
    assert len(trainer.eval_dataset) == count


def test_null_in_place_of_negatives_means_none_to_whoever_shapes_rows() -> None:
    rows = {"query": ["q", "r"], "positive": ["p", "s"], "negatives": [None, ["a"]]}
    assert pairs(1)(rows)["label"] == [1.0, 1.0, 0.0]
    assert lists(1)(rows)["query"] == ["r"]
    assert [one.wrong for one in queries_of(rows)] == [(), ("a",)]


def test_lists_are_counted_and_null_counts_as_empty() -> None:
    from datasets import Dataset

    rows = Dataset.from_dict({"negatives": [["a", "b"], None, []], "other": [1, 2, 3]})
    assert list_lengths(rows, "negatives").tolist() == [2, 0, 0]
    assert list_lengths(rows.select([2, 0]), "negatives").tolist() == [0, 2]


def test_texts_are_compared_by_hashes_that_do_not_change() -> None:
    from datasets import Dataset

    found = text_hashes(Dataset.from_dict({"anchor": ["a", "b", "ä"], "positive": ["b", "c", "a"]}))
    assert found.dtype == np.int64
    assert len(set(found.ravel().tolist())) == 4
    assert (found[0, 0], found[1, 0]) == (found[2, 1], found[0, 1])
    assert found[0, 0] == np.frombuffer(bytes.fromhex("40f89e395b66422f"), np.int64)[0]


def test_an_adapter_is_all_that_is_trained_of_a_model_with_a_dense_layer(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    base, data = train_bases.projecting(tmp_path), train_bases.retrieval(tmp_path / "data")
    few = {"max_steps": 2, "learning_rate": 0.05}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = method_of("embedder").trainer(
            task(tmp_path, "embedder", base, data, lora={"rank": 4}, optimisation=few)
        )
        trained = {name.split(".")[0] for name, weight in trainer.model.named_parameters() if weight.requires_grad}
        trainer.train()
        trainer.save_model(str(tmp_path / "saved"))
        expected = trainer.model.eval().encode(TEXTS)
        adapter = ResolvedModel("adapter", tmp_path / "saved", "", "path")
        merging.merge("embedder", AdaptedModel(resolve(str(base)), adapter), tmp_path / "merged")
    assert trained == {"0"}
    merged, plain = (SentenceTransformer(str(folder), device="cpu") for folder in (tmp_path / "merged", base))
    assert merged.encode(TEXTS) == pytest.approx(expected, abs=1e-5)
    assert plain.encode(TEXTS) != pytest.approx(expected, abs=1e-2)
