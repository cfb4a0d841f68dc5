"""How much does an embedder gain that is fine-tuned to a domain, and what does it forget?

The recipe `embedder-scifact` trains on SciFact's train split; the test queries are for evaluation only. Intervals are
95 % bootstrap intervals over questions, of the difference on the same questions.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from corpora import CACHE, Collection, Question, data_folder, scifact, squad
from metrics import hit, ndcg
from quality import ingested, rankings
from table import Cell, Table
from trained import Gain, every, interval

from ray_jobs.index.search import SearchConfig
from ray_jobs.models.embedder import EmbedderConfig
from ray_jobs.runtime import session

FORGETTING = 5  # every fifth question of SQuAD, over all passages
RECIPE, EMBEDDER = "embedder-scifact", "minilm-scifact"


def measure(quick: bool) -> list[Table]:
    """Run the recipe and evaluate what it made; returns the table, none where `quick`: a recipe has one size."""
    if quick:
        return []
    tuned = _recipe()
    with tempfile.TemporaryDirectory() as folder, session():
        return [_table(Path(folder), tuned)]


def _recipe() -> EmbedderConfig:
    store = CACHE / "store"
    given = {**os.environ, "TANDEM_STORE": str(store), "TANDEM_DATA": str(data_folder())}
    subprocess.run([sys.executable, "-m", "cluster.recipe", RECIPE], env=given, check=True)
    return EmbedderConfig(model=str(store / "models" / EMBEDDER))


def _table(folder: Path, tuned: EmbedderConfig) -> Table:
    """The wheel's embedder before and after fine-tuning on SciFact's train split."""
    test, retained = scifact("test"), every(squad("squad_v1_dev", "SQuAD v1 dev"), FORGETTING)
    trained_on = {document for question in scifact("train").questions for document in question.relevant}
    apart = replace(test, questions=[q for q in test.questions if not trained_on.intersection(q.relevant)])
    measured: list[tuple[str, Collection, Gain, str]] = [
        ("target", test, ndcg, "nDCG@10"),
        ("target, gold documents not among training's", apart, ndcg, "nDCG@10"),
        ("retained", retained, lambda *given: hit(*given, 10), "hit@10"),
    ]
    config = SearchConfig(mode="dense", k=10)
    rows: list[list[Cell]] = []
    found: dict[tuple[str, str], list[list[str]]] = {}
    for when, embedder in (("before", None), ("after", tuned)):
        for collection in (test, retained):
            with ingested(collection, folder / when, embedder) as snapshot:
                found[when, collection.name] = rankings(snapshot, collection, config)
    for role, collection, gain, name in measured:
        own = test if collection is apart else collection
        before, after = (
            [gain(ranked, question.relevant) for ranked, question in _asked(found[when, own.name], own, collection)]
            for when in ("before", "after")
        )
        delta = [new - old for new, old in zip(after, before, strict=True)]
        low, high = interval(delta)
        rows.append(
            [
                f"{collection.name}, {role}",
                len(collection.questions),
                name,
                f"{np.mean(before):.4f}",
                f"{np.mean(after):.4f}",
                f"{np.mean(delta):+.4f} ({low:+.4f} to {high:+.4f})",
            ]
        )
    return Table(
        "The embedder fine-tuned on SciFact's train split, dense search",
        ["set", "questions", "measure", "before", "after", "difference (95 %)"],
        rows,
        notes=(f"`make recipe-{RECIPE}`; of SQuAD every {FORGETTING}th question, over all passages.",),
    )


def _asked(ranked: Sequence[list[str]], whole: Collection, part: Collection) -> list[tuple[list[str], Question]]:
    wanted = {question.id for question in part.questions}
    return [(r, q) for r, q in zip(ranked, whole.questions, strict=True) if q.id in wanted]
