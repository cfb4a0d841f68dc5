"""The inputs of the recipes, as JSON Lines, of the Parquet files of the folder that TANDEM_DATA names.

    squadshifts-questions.jsonl   questions with their passage and the places of their answers (rows of kind qa)
    squadshifts-corpus.jsonl      its passages, to ingest
    scifact-train.jsonl           claims with the abstracts that bear on them (rows of kind retrieval)
    scifact-corpus.jsonl          its abstracts, to ingest
    squad-v1-dev.jsonl, scifact-test.jsonl   what is evaluated on: no row to train on may be found there

Guaranteed: nothing that is evaluated on is in a file to train on; the same folder gives the same bytes. Not guaranteed:
that the data may be given on; their terms differ.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ray_jobs.errors import NotFoundError, UsageError

Rows = Iterator[dict[str, object]]


def write_inputs(data: Path, names: tuple[str, ...], folder: Path) -> list[Path]:
    """Write these files into `folder`; those that are there stay.

    Raises NotFoundError where the folder of the data lacks a set, UsageError for a name that is not listed above.
    """
    return [_written(data, name, folder) for name in names]


def _written(data: Path, name: str, folder: Path) -> Path:
    if name not in _INPUTS:
        raise UsageError(f"inputs={name}: expected one of {', '.join(_INPUTS)}")
    file = folder / name
    if file.is_file():
        return file
    folder.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{name}.partial")
    with partial.open("w", encoding="utf-8") as lines:
        for row in _INPUTS[name](data):
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    partial.rename(file)
    return file


def _questions(folder: str) -> Callable[[Path], Rows]:
    def rows(data: Path) -> Rows:
        passages = {row["id"]: row for row in _read(data, f"{folder}/passages")}
        for row in _read(data, f"{folder}/questions"):
            passage = passages[row["passage_id"]]
            yield {
                "id": row["id"],
                "question": row["question"],
                "passage": passage["text"],
                "answers": row["answers"],
                "starts": row["answer_starts"],
                # Wikipedia stays together by article; each comment and each review is by itself.
                "source": _title(passage) or passage["id"],
            }

    return rows


def _passages(folder: str) -> Callable[[Path], Rows]:
    def rows(data: Path) -> Rows:
        for row in _read(data, f"{folder}/passages"):
            yield {"id": row["id"], "title": _title(row), "text": row["text"]}

    return rows


def _abstracts(data: Path) -> Rows:
    for row in _read(data, "beir_scifact/corpus"):
        yield {"id": row["id"], "title": row["title"], "text": row["text"]}


def _claims(split: str) -> Callable[[Path], Rows]:
    def rows(data: Path) -> Rows:
        abstracts = {row["id"]: row for row in _read(data, "beir_scifact/corpus")}
        claims = {row["id"]: row["text"] for row in _read(data, "beir_scifact/queries")}
        found: dict[str, list[str]] = {}
        for row in _read(data, "beir_scifact/qrels"):
            if row["split"] == split and row["score"] > 0:
                found.setdefault(row["query_id"], []).append(row["doc_id"])
        for claim, documents in found.items():
            texts = [f"{abstracts[document]['title']}\n{abstracts[document]['text']}" for document in documents]
            yield {"query_id": claim, "query": claims[claim], "positive": texts, "positive_id": documents}

    return rows


def _title(passage: Mapping[str, Any]) -> str:
    """The title of an article; those of comments and reviews are of collections."""
    is_article = passage.get("source", "new_wiki") == "new_wiki"
    return str(passage["title"]).replace("_", " ") if is_article else ""


def _read(data: Path, name: str) -> list[dict[str, Any]]:
    file = data / f"{name}.parquet"
    if not file.is_file():
        raise NotFoundError(
            f"TANDEM_DATA={data}: {name}.parquet is missing; set TANDEM_DATA to the folder that holds squadshifts, "
            "beir_scifact and squad_v1_dev"
        )
    rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    return rows


_INPUTS: Mapping[str, Callable[[Path], Rows]] = {
    "squadshifts-questions.jsonl": _questions("squadshifts"),
    "squadshifts-corpus.jsonl": _passages("squadshifts"),
    "squad-v1-dev.jsonl": _questions("squad_v1_dev"),
    "scifact-corpus.jsonl": _abstracts,
    "scifact-train.jsonl": _claims("train"),
    "scifact-test.jsonl": _claims("test"),
}
