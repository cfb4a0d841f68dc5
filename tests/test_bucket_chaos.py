"""The whole way with a bucket as the store, by the commands that a user types: from documents to a tuned embedder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import train_bases
import yaml
from command_line import FAKE, end, start
from s3_server import Bucket, s3_server

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

STORE = "s3://bucket/store"
RATES = [0.001, 1e-9]


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with s3_server() as found:
        yield found


@pytest.fixture(scope="module")
def searched(bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each command has printed; every one is a process of its own."""
    folder = tmp_path_factory.mktemp("bucket")
    environment = {**os.environ, **bucket.environment}
    environment.pop("RAY_ADDRESS", None)

    def tandem(*arguments: object) -> str:
        return end(start(environment, folder, *arguments)).succeeded()

    rows = pq.read_table(train_bases.retrieval(folder / "made", train=320) / "train.parquet").to_pylist()
    for name, part in (("rows", rows[:160]), ("others", rows[160:])):
        lines = (json.dumps({key: row[key] for key in ("query", "positive")}) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text("".join(lines))
    corpus = folder / "corpus.jsonl"
    texts = sorted({row["positive"] for row in rows})
    corpus.write_text("".join(json.dumps({"id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(texts)))
    told = {"ingest": tandem("ingest", corpus, "--index", "topics", "--store", STORE, *FAKE)}
    shares = ("--split.by", "query", "--split.train", "0.6", "--split.validation", "0.2", "--split.test", "0.2")
    for name in ("rows", "others"):
        given = (folder / f"{name}.jsonl", "--name", name, "--store", STORE, *shares)
        told[name] = tandem("prepare", *given, "--no-near-duplicates")
    told["mine"] = tandem(
        *("mine", "--data", "rows", "--index", "topics", "--name", "hard", "--store", STORE),
        *("--search.mode", "lexical", "--num-negatives", "2"),
    )
    tune = folder / "tune.yaml"
    tune.write_text(yaml.safe_dump(search(folder)))
    told["tune"] = tandem("tune", "--config", tune)
    (best,) = [key for key in bucket.found("store/tune/tuned/") if key.endswith("/best.yaml")]
    bucket.client.download_file("bucket", best, str(folder / "best.yaml"))
    told["train"] = tandem("train", "--config", folder / "best.yaml")
    told["info"] = tandem("models", "info", "tuned", "--store", STORE)
    told["search"] = tandem("search", texts[0], "--index", "topics", "--store", STORE, "--mode", "lexical")
    return told


def search(folder: Path) -> dict[str, Any]:
    """Two rates, of which one learns nothing, judged by what is gained less what is forgotten."""
    return {
        "train": {
            "method": "embedder",
            "base": str(train_bases.embedder(folder / "embedder")),
            "data": "hard",
            "store": STORE,
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


def test_negatives_are_mined_from_an_index_in_the_bucket(searched: dict[str, str], bucket: Bucket) -> None:
    assert "hard" in searched["mine"]
    assert any(key.startswith("store/datasets/hard/") and key.endswith("train.parquet") for key in bucket.found())


def test_the_search_measures_gain_and_forgetting_and_its_best_is_published_without_training_again(
    searched: dict[str, str], bucket: Bucket
) -> None:
    assert "gain in ndcg@10 on validation rows - 0.5 x forgotten on other" in searched["tune"]
    assert "was finished before, nothing was trained" in searched["train"]
    assert "store/models/tuned/card.json" in bucket.found("store/models/")


def test_the_card_tells_of_test_rows_that_had_no_say(searched: dict[str, str], bucket: Bucket) -> None:
    card = json.loads(bucket.client.get_object(Bucket="bucket", Key="store/models/tuned/card.json")["Body"].read())
    assert {(row["role"], row["set"]) for row in card["evaluation"]} == {("target", "test"), ("retained", "other")}
    assert "ndcg@10" in searched["info"]
