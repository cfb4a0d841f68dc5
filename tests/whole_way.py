"""From documents to a tuned embedder, by the commands that a user types, over any store and any cluster."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import train_bases
import yaml
from command_line import FAKE, end, start

RATES = [0.001, 1e-9]


class Way:
    """Commands, each a process of its own, and what they print."""

    def __init__(self, environment: Mapping[str, str], folder: Path, store: str) -> None:
        self.environment = dict(environment)
        self.folder = folder
        self.store = store
        self.texts: list[str] = []

    def tandem(self, *arguments: object) -> str:
        """Type one command; what it printed."""
        return end(start(self.environment, self.folder, *arguments)).succeeded()

    def to_negatives(self) -> dict[str, str]:
        """An index of passages, two sets of rows about them, and negatives mined for the first."""
        rows = pq.read_table(train_bases.retrieval(self.folder / "made", train=320) / "train.parquet").to_pylist()
        for name, part in (("rows", rows[:160]), ("others", rows[160:])):
            lines = (json.dumps({key: row[key] for key in ("query", "positive")}) + "\n" for row in part)
            (self.folder / f"{name}.jsonl").write_text("".join(lines))
        corpus = self.folder / "corpus.jsonl"
        self.texts = sorted({row["positive"] for row in rows})
        corpus.write_text(
            "".join(json.dumps({"id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(self.texts))
        )
        told = {"ingest": self.tandem("ingest", corpus, "--index", "topics", "--store", self.store, *FAKE)}
        shares = ("--split.by", "query", "--split.train", "0.6", "--split.validation", "0.2", "--split.test", "0.2")
        for name in ("rows", "others"):
            given = (self.folder / f"{name}.jsonl", "--name", name, "--store", self.store, *shares)
            told[name] = self.tandem("prepare", *given, "--no-near-duplicates")
        told["mine"] = self.tandem(
            *("mine", "--data", "rows", "--index", "topics", "--name", "hard", "--store", self.store),
            *("--search.mode", "lexical", "--num-negatives", "2"),
        )
        return told

    def tuned(self) -> str:
        """What the search says of two rates, of which one learns nothing."""
        file = self.folder / "tune.yaml"
        file.write_text(yaml.safe_dump(self.search()))
        return self.tandem("tune", "--config", file)

    def search(self) -> dict[str, Any]:
        """A search judged by what is gained less what is forgotten."""
        return {
            "train": {
                "method": "embedder",
                "base": str(train_bases.embedder(self.folder / "embedder")),
                "data": "hard",
                "store": self.store,
                "name": "tuned",
                "optimisation": {"global_batch": 16, "micro_batch": 8, "max_steps": 20, "warmup": 0},
                "checkpoints": {"every_steps": 10},
                "evaluation": {"retained": {"other": "others"}},
            },
            "space": {"optimisation.learning_rate": {"type": "choice", "values": RATES}},
            "search": "grid",
            "scheduler": "none",
            "objective": {"target": "ndcg@10", "retained": "other", "weight": 0.5},
        }
