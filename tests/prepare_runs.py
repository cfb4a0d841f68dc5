"""Rows of every kind, and runs of the preparation job over them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from ray_jobs.train import prepare
from ray_jobs.train.data.card import DataCard
from ray_jobs.train.data.config import PrepareConfig
from ray_jobs.train.data.prepared import Prepared

SUBJECTS = ("snapshot", "shard", "reranker", "tokenizer", "checkpoint", "gateway", "partition", "adapter", "manifest")


def question(number: int) -> dict[str, object]:
    """A row whose prompt is near that of no other number."""
    subject = SUBJECTS[number % len(SUBJECTS)]
    worker = hashlib.sha256(str(number).encode()).hexdigest()
    return {
        "prompt": f"What becomes of {subject} {number} when worker {worker} is lost?",
        "completion": f"It is made again by worker {number * 17}, from what {subject} {number} left behind.",
        "doc_id": f"d{number % 60}",
    }


def row_of(kind: str, number: int) -> dict[str, object]:
    """A row with the canonical columns of a kind, near that of no other number."""
    asked, answer = str(question(number)["prompt"]), str(question(number)["completion"])
    rows: dict[str, dict[str, object]] = {
        "messages": {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]},
        "preference": {"prompt": asked, "chosen": answer, "rejected": "Nothing."},
        "label": {"prompt": asked, "completion": answer, "label": number % 2 == 0},
        "retrieval": {
            "query": asked,
            "positive": answer,
            "negatives": ["Nothing."] * (number % 3),
            "positive_id": f"p{number}" if number % 2 else None,
            "negative_ids": ["n"] * (number % 3),
        },
        "qa": {
            "question": asked,
            "passage": asked + answer,
            "answers": [answer] * (number % 2),
            "starts": [len(asked)] * (number % 2),
        },
    }
    return rows[kind]


def write(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def run(tmp_path: Path, *inputs: Path, **settings: object) -> Prepared:
    defaults = {
        "inputs": [str(path) for path in inputs],
        "name": "toy",
        "store": str(tmp_path / "store"),
        "split": {"train": 0.6, "validation": 0.2, "test": 0.2},
    }
    return prepare.run(PrepareConfig.model_validate({**defaults, **settings})).prepared


def rows_of(prepared: Prepared) -> dict[str, list[dict[str, object]]]:
    return {name: pq.read_table(prepared.split(name)).to_pylist() for name in prepared.card.splits}


def card_of(prepared: Prepared) -> DataCard:
    assert prepared.card.check() == []
    return prepared.card


def retrieval_rows(count: int) -> list[dict[str, object]]:
    return [
        {"query": question(n)["prompt"], "positive": hashlib.sha256(f"p{n}".encode()).hexdigest()}
        for n in range(1, count + 1)
    ]
