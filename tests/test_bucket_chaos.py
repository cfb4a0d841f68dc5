"""The whole way with a bucket as the store, by the commands that a user types: from documents to a tuned embedder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
from s3_server import Bucket, s3_server
from whole_way import Way

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

STORE = "s3://bucket/store"


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with s3_server() as found:
        yield found


@pytest.fixture(scope="module")
def searched(bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each command has printed."""
    environment = {**os.environ, **bucket.environment}
    environment.pop("RAY_ADDRESS", None)
    way = Way(environment, tmp_path_factory.mktemp("bucket"), STORE)
    told = way.to_negatives()
    told["tune"] = way.tuned()
    (best,) = [key for key in bucket.found("store/tune/tuned/") if key.endswith("/best.yaml")]
    bucket.client.download_file("bucket", best, str(way.folder / "best.yaml"))
    told["train"] = way.tandem("train", "--config", way.folder / "best.yaml")
    told["info"] = way.tandem("models", "info", "tuned", "--store", STORE)
    told["search"] = way.tandem("search", way.texts[0], "--index", "topics", "--store", STORE, "--mode", "lexical")
    return told


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
