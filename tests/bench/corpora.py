"""The real text that is measured on, read from the folder that TANDEM_DATA names.

Guaranteed: what is returned is what the files hold, in a fixed order. Nothing is downloaded, nothing is copied into
the repository. Not guaranteed: that the folder is there; `data_folder` says so and `run.py` ends with exit code 2.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(__file__).resolve().parent / ".cache"
DEFAULT_DATA = ROOT.parent / "shared" / "data"


class MissingDataError(Exception):
    """The folder of real text, or a part of it, is not on this machine."""


@dataclass(frozen=True)
class Passage:
    """One document of a corpus."""

    id: str
    title: str
    text: str


@dataclass(frozen=True)
class Question:
    """One query, and the grade of each relevant document (higher is better)."""

    id: str
    text: str
    relevant: dict[str, int]


@dataclass(frozen=True)
class Collection:
    """A corpus with questions and judgements."""

    name: str
    passages: list[Passage]
    questions: list[Question]


def data_folder() -> Path:
    """The folder of the data sets; raises MissingDataError when it does not exist."""
    folder = Path(os.environ.get("TANDEM_DATA") or DEFAULT_DATA)
    if not folder.is_dir():
        raise MissingDataError(
            f"TANDEM_DATA={folder}: no such folder; set TANDEM_DATA to the folder with beir_scifact, ir_cranfield, "
            f"ir_cisi, squad_v1_dev, squadshifts and docs_corpus"
        )
    return folder


def read(name: str) -> list[dict[str, object]]:
    """All rows of one Parquet file, such as "beir_scifact/corpus"."""
    path = data_folder() / f"{name}.parquet"
    if not path.is_file():
        raise MissingDataError(f"TANDEM_DATA={data_folder()}: {path.relative_to(data_folder())} is missing")
    rows: list[dict[str, object]] = pq.read_table(path).to_pylist()
    return rows


def scifact(split: str) -> Collection:
    """SciFact as in BEIR: claims to abstracts; `split` is "train" or "test"."""
    grades = _grades([row for row in read("beir_scifact/qrels") if row["split"] == split])
    return Collection(f"SciFact {split}", _passages("beir_scifact/corpus"), _judged("beir_scifact/queries", grades))


def classic(folder: str, name: str) -> Collection:
    """Cranfield or CISI, graded."""
    grades = _grades(read(f"{folder}/qrels"))
    return Collection(name, _passages(f"{folder}/corpus"), _judged(f"{folder}/queries", grades))


def squad(folder: str, name: str, origin: str | None = None) -> Collection:
    """SQuAD-like questions, each with the one passage it was asked about; `origin` picks a part of squadshifts."""
    passages = _passages(f"{folder}/passages", None if origin is None else ("source", origin))
    known = {passage.id for passage in passages}
    questions = [
        Question(str(row["id"]), str(row["question"]), {str(row["passage_id"]): 1})
        for row in read(f"{folder}/questions")
        if str(row["passage_id"]) in known
    ]
    return Collection(name, passages, questions)


def documentation() -> Iterator[Passage]:
    """Technical documentation from many sources in one fixed random order (of `fingerprint`)."""
    tables = [
        pq.read_table(path, columns=["id", "title", "text"])
        for path in sorted((data_folder() / "docs_corpus").glob("*.parquet"))
    ]
    if not tables:
        raise MissingDataError(f"TANDEM_DATA={data_folder()}: docs_corpus is missing")
    table = pa.concat_tables(tables)
    marks = [fingerprint(key) for key in table["id"].to_pylist()]
    for position in sorted(range(len(marks)), key=marks.__getitem__):
        row = table.slice(position, 1).to_pylist()[0]
        yield Passage(str(row["id"]), str(row["title"] or ""), str(row["text"]))


def fingerprint(document_id: str) -> int:
    """A number that depends on the id alone: for random orders and splits that never change."""
    return int.from_bytes(hashlib.sha256(document_id.encode()).digest()[:8])


def write_parquet(passages: list[Passage], path: Path) -> None:
    """Write a corpus as a user would hold it: id, title, text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "id": [passage.id for passage in passages],
            "title": [passage.title for passage in passages],
            "text": [passage.text for passage in passages],
        }
    )
    pq.write_table(table, path, compression="zstd", row_group_size=1000)


def _passages(name: str, only: tuple[str, str] | None = None) -> list[Passage]:
    return [
        Passage(str(row["id"]), str(row["title"] or ""), str(row["text"] or ""))
        for row in read(name)
        if only is None or row[only[0]] == only[1]
    ]


def _grades(judgements: list[dict[str, object]]) -> dict[str, dict[str, int]]:
    grades: dict[str, dict[str, int]] = {}
    for row in judgements:
        grades.setdefault(str(row["query_id"]), {})[str(row["doc_id"])] = int(str(row["score"]))
    return grades


def _judged(name: str, grades: dict[str, dict[str, int]]) -> list[Question]:
    return [
        Question(str(row["id"]), str(row["text"]), grades[str(row["id"])])
        for row in read(name)
        if str(row["id"]) in grades
    ]
