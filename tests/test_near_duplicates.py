"""How many planted near duplicates are found, and how many of those that are found are some."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from ingest_runs import ingest, live, write_jsonl

from ray_jobs.corpus.sketch import shingles
from ray_jobs.ingest.ledger import known_documents
from ray_jobs.storage import LocalStorage

pytest_plugins = ["in_process"]
pytestmark = pytest.mark.usefixtures("in_process")

LETTERS = "abcdefghijklmnopqrstuvwxyz"
ORIGINALS, COPIES, WORDS = 40, 8, 120


def planted() -> dict[str, str]:
    """Originals, and copies of each in which more and more words are others; in no order."""
    chance = random.Random(0)
    texts = {}
    for original in range(ORIGINALS):
        words = ["".join(chance.choices(LETTERS, k=chance.randint(2, 9))) for _ in range(WORDS)]
        for copy in range(COPIES):
            changed = list(words)
            for place in chance.sample(range(WORDS), 2 * copy):
                changed[place] = "".join(chance.choices(LETTERS, k=6))
            texts[f"{chance.random():.9f}-{original}"] = " ".join(changed)
    return dict(sorted(texts.items()))


def jaccard(one: str, other: str) -> float:
    own, others = (set(shingles(f"\n{text}").tolist()) for text in (one, other))
    return len(own & others) / len(own | others)


@pytest.mark.parametrize("threshold", [0.7, 0.8, 0.9])
def test_most_planted_ones_are_found_and_few_others(tmp_path: Path, threshold: float) -> None:
    texts = planted()
    source = write_jsonl(tmp_path / "a.jsonl", [{"id": name, "text": text} for name, text in texts.items()])
    ingest(tmp_path, source, deduplicate={"mode": "near", "threshold": threshold})
    storage = LocalStorage(tmp_path / "store")
    known = [row for file in live(tmp_path).ledger for row in known_documents(storage, file).to_pylist()]
    searched = [row["doc_id"] for row in known if row["status"] == "indexed"]
    dropped = {row["doc_id"]: row["duplicate_of"] for row in known if row["status"] == "duplicate"}
    assert len(searched) >= ORIGINALS
    assert len(dropped) > 0.1 * len(texts)
    # Signatures estimate: a standard error of 0.035 at 0.8.
    wrong = [name for name, other in dropped.items() if jaccard(texts[name], texts[other]) < threshold - 0.07]
    assert len(wrong) <= 0.02 * len(dropped)
    by_original: dict[str, list[str]] = {}
    for name in searched:
        by_original.setdefault(name.split("-")[1], []).append(texts[name])
    near = [
        (one, other)
        for own in by_original.values()
        for place, one in enumerate(own)
        for other in own[:place]
        if jaccard(one, other) > threshold + 0.07
    ]
    assert len(near) <= 0.02 * len(dropped)
