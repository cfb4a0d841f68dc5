"""How much of the order of hits is the carried reranker's? Decided on training data that it has not seen.

    python tests/bench/tune_reranking.py --store STORE [--model tandem-reranker]

STORE is the store in which `make recipe-reranker` has prepared its data: the questions asked here are of the validation
split of its claims (SciFact train) and of the validation and test splits of squadshifts. Never SciFact test or SQuAD v1
dev, which trained.py evaluates. Prints a table; the choice goes into ray_jobs/answer/defaults.py by hand.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq
from corpora import Collection, MissingDataError, scifact, squad
from metrics import hit, mean, ndcg
from quality import ingested
from table import Cell, Table, markdown

from ray_jobs.errors import TandemError
from ray_jobs.index.hits import Hit
from ray_jobs.index.reranking import passage, reranked, wider
from ray_jobs.index.search import SearchConfig
from ray_jobs.models.for_queries import load_for_queries
from ray_jobs.models.reranker import Reranker, RerankerConfig
from ray_jobs.runtime import session
from ray_jobs.storage import Storage, open_storage
from ray_jobs.train.data.prepared import open_prepared

QUESTIONS = 200  # of each part of squadshifts
PARTS = ("new_wiki", "reddit", "amazon_reviews")
WEIGHTS = [round(0.05 * step, 2) for step in range(2, 21)]
DEPTH = 50
CONFIG = SearchConfig(k=10, by="document")


@dataclass(frozen=True)
class Asked:
    """One question: what is right, what was retrieved, and what the reranker says of it."""

    relevant: dict[str, int]
    hits: Sequence[Hit]
    scores: Sequence[float]

    def order(self, weight: float) -> list[str]:
        """Documents, best first; with weight 0 as they were retrieved."""
        if weight == 0:
            return list(dict.fromkeys(found.doc_id for found in self.hits))[: CONFIG.k]
        return [found.doc_id for found in reranked(self.hits, self.scores, CONFIG, weight)]


def main() -> int:
    """Print, for every weight, what is reached on each set; 0 on success, 2 where data are missing."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--store", required=True)
    parser.add_argument("--model", default="tandem-reranker")
    options = parser.parse_args()
    try:
        storage = open_storage(options.store)
        reranker = Reranker.load(RerankerConfig(model=options.model), storage)
        sets = {collection.name: _asked(collection, reranker) for collection in _collections(storage)}
    except (MissingDataError, TandemError) as error:
        print(error, file=sys.stderr)
        return 2
    rows: list[list[Cell]] = []
    for weight in [0.0, *WEIGHTS]:
        values = [_measured(name, asked, weight) for name, asked in sets.items()]
        # Squadshifts counts as one set.
        rows.append([weight, *(f"{value:.4f}" for value in values), f"{(values[0] + mean(values[1:])) / 2:.4f}"])
    notes = ("SciFact: nDCG@10; the others: hit@1. Objective: mean of SciFact and of the mean of the three others.",)
    columns = ["weight", *(f"{name} ({len(asked)})" for name, asked in sets.items()), "objective"]
    print(markdown(Table(f"{options.model} over the {DEPTH} best chunks of hybrid search", columns, rows, notes)))
    return 0


def _measured(name: str, asked: Sequence[Asked], weight: float) -> float:
    orders = [(one.order(weight), one.relevant) for one in asked]
    if name.startswith("SciFact"):
        return mean([ndcg(*order) for order in orders])
    return mean([hit(*order, 1) for order in orders])


def _collections(storage: Storage) -> list[Collection]:
    claims = _queries(storage, "scifact-hard", "validation")
    whole = scifact("train")
    found = [replace(whole, questions=[question for question in whole.questions if question.text in claims])]
    questions = _queries(storage, "squadshifts-hard", "validation", "test")
    for part in PARTS:
        whole = squad("squadshifts", f"squadshifts {part}", part)
        unseen = [question for question in whole.questions if question.text in questions]
        found.append(replace(whole, questions=unseen[:QUESTIONS]))
    return found


def _queries(storage: Storage, data: str, *splits: str) -> set[str]:
    prepared = open_prepared(storage, data)
    return {
        str(query)
        for split in splits
        for query in pq.read_table(prepared.split(split), columns=["query"]).column("query").to_pylist()
    }


def _asked(collection: Collection, reranker: Reranker) -> list[Asked]:
    with tempfile.TemporaryDirectory() as folder, session(), ingested(collection, Path(folder)) as snapshot:
        embedder = load_for_queries(None, snapshot.manifest.embedder)
        config = wider(CONFIG, DEPTH)
        found = [snapshot.search([question.text], config, embedder)[0] for question in collection.questions]
    pairs = [
        (question.text, passage(one))
        for question, hits in zip(collection.questions, found, strict=True)
        for one in hits
    ]
    scores = iter(reranker.score_pairs(pairs).scores.tolist())
    return [
        Asked(question.relevant, hits, [next(scores) for _ in hits])
        for question, hits in zip(collection.questions, found, strict=True)
    ]


if __name__ == "__main__":
    sys.exit(main())
