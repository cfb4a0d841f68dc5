"""Which fusion of dense and lexical rankings is the default? Decided on training data only.

    python tests/bench/tune_fusion.py [--depth 100]

Training data: the train questions of SciFact, and squadshifts (Wikipedia, Reddit, Amazon). Never SciFact test, SQuAD v1
dev, Cranfield or CISI, which quality.py evaluates. Prints a table; the choice goes into SearchConfig by hand.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from corpora import CACHE, Collection, MissingDataError, scifact, squad
from fusions import FUSIONS, Fusion, Matrix, Scores, cut
from metrics import hit, mean, ndcg
from quality import ingested
from table import Cell, Table, markdown

from ray_jobs.index.search import SearchConfig, Statistics, make_plan
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.models.for_queries import load_for_queries
from ray_jobs.runtime import session

ALL = 10_000  # more documents than any of these sets has
BATCH = 32
QUESTIONS = 1_500  # of each part of squadshifts
WEIGHTS = [round(0.05 * step, 2) for step in range(21)]
PARTS = ("new_wiki", "reddit", "amazon_reviews")


@dataclass(frozen=True)
class Training:
    """Every document's score for every question of one set."""

    name: str
    dense: Matrix
    lexical: Matrix
    bound: Matrix
    documents: list[str]
    relevant: list[dict[str, int]]


def main() -> int:
    """Print, for every fusion, its best weight and what it reaches on each training set."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--depth", type=int, default=100)
    depth = parser.parse_args().depth
    warnings.simplefilter("ignore", RuntimeWarning)  # means of empty rankings
    try:
        sets = training_sets()
    except MissingDataError as error:
        print(error, file=sys.stderr)
        return 2
    rows: list[list[Cell]] = []
    for complete in (False, True):
        scores = [cut(item.dense, item.lexical, item.bound, depth, complete) for item in sets]
        for name, fusion in FUSIONS.items():
            rows.append(_row(name, complete, fusion, sets, scores))
        print(f"complete={complete} done", file=sys.stderr, flush=True)
    rows.sort(key=lambda row: -float(str(row[-1])))
    columns = [
        "fusion",
        "scores of the other's finds",
        "dense weight",
        "weights within 0.002",
        *(item.name for item in sets),
        "objective",
    ]
    notes = ("SciFact: nDCG@10; the others: hit@1. Objective: mean of SciFact and of the mean of the three others.",)
    print(markdown(Table(f"Fusion on training data, depth {depth}", columns, rows, notes)))
    return 0


def _row(name: str, complete: bool, fusion: Fusion, sets: list[Training], scores: list[Scores]) -> list[Cell]:
    reached = []
    for weight in WEIGHTS:
        values = [measured(item, part, fusion(part, weight)) for item, part in zip(sets, scores, strict=True)]
        reached.append((objective(values), weight, values))
    best = max(reached)
    near = [weight for value, weight, _ in reached if value >= best[0] - 0.002]
    figures = [f"{value:.4f}" for value in (*best[2], best[0])]
    return [name, "computed" if complete else "left out", best[1], f"{min(near)} to {max(near)}", *figures]


def measured(item: Training, scores: Scores, fused: Matrix) -> float:
    """nDCG@10 for SciFact, hit@1 for the rest."""
    top = np.take_along_axis(scores.document, np.argsort(-fused, axis=1, kind="stable")[:, :10], 1)
    found = [[item.documents[place] for place in row] for row in top.tolist()]
    pairs = zip(found, item.relevant, strict=True)
    if item.name.startswith("SciFact"):
        return mean([ndcg(ranked, grades) for ranked, grades in pairs])
    return mean([hit(ranked, grades, 1) for ranked, grades in pairs])


def objective(values: list[float]) -> float:
    """One figure of the four sets, in which squadshifts counts as one."""
    return (values[0] + mean(values[1:])) / 2


def training_sets() -> list[Training]:
    """The training sets, scored by Tandem's own search; kept in .cache."""
    collections = [scifact("train")]
    for part in PARTS:
        whole = squad("squadshifts", f"squadshifts {part}", part)
        step = max(1, len(whole.questions) // QUESTIONS)
        collections.append(replace(whole, questions=whole.questions[::step][:QUESTIONS]))
    return [_scored(collection) for collection in collections]


def _scored(collection: Collection) -> Training:
    path = CACHE / "fusion" / f"{collection.name.replace(' ', '-')}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder, session(), ingested(collection, Path(folder)) as snapshot:
            dense, lexical, bound = _all_scores(snapshot, collection)
        np.savez(path, dense=dense, lexical=lexical, bound=bound)
    stored = np.load(path)
    documents = [passage.id for passage in collection.passages]
    relevant = [question.relevant for question in collection.questions]
    return Training(
        collection.name,
        stored["dense"].astype(np.float64),
        stored["lexical"].astype(np.float64),
        stored["bound"].astype(np.float64),
        documents,
        relevant,
    )


def _all_scores(snapshot: Snapshot, collection: Collection) -> tuple[npt.NDArray[np.float32], ...]:
    """Dense and lexical scores (q, n) of every document as its best chunk, and the bounds of BM25 (q, 1)."""
    embedder = load_for_queries(None, snapshot.manifest.embedder)
    columns = {passage.id: place for place, passage in enumerate(collection.passages)}
    shape = (len(collection.questions), len(columns))
    scores = {"dense": np.full(shape, -1, np.float32), "lexical": np.zeros(shape, np.float32)}
    bound = np.zeros((len(collection.questions), 1), np.float32)
    for first in range(0, len(collection.questions), BATCH):
        texts = [question.text for question in collection.questions[first : first + BATCH]]
        for mode in ("dense", "lexical"):
            config = SearchConfig(mode=mode, k=ALL)
            queries = snapshot.prepare(texts, config, embedder)
            known = snapshot.partition.statistics({term for terms in queries.terms for term in terms}, None)
            plan = make_plan(snapshot.manifest, config, None, known.allowed)
            listed = snapshot.ranking(queries, plan, known).candidates
            doc_ids, _ = snapshot.rows.keys(listed.shard, listed.row)
            places = [columns[doc_id] for doc_id in doc_ids]
            scores[mode][first + listed.query, places] = listed.score
            if mode == "lexical":
                bound[first : first + len(texts), 0] = _bounds(queries.terms, known)
    return scores["dense"], scores["lexical"], bound


def _bounds(terms: list[list[str]], known: Statistics) -> list[float]:
    return [sum(known.lexical.idf(term) for term in query) for query in terms]


if __name__ == "__main__":
    sys.exit(main())
