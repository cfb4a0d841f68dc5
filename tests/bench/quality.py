"""Does search find what people judged relevant? Tandem's default configuration, through the real ingest job.

Guaranteed: nothing here was tuned on these questions (see tune_fusion.py); a document scores as its best chunk.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from corpora import Collection, classic, scifact, squad, write_parquet
from metrics import hit, mean, ndcg
from table import Cell, Table

from ray_jobs.index.search import Mode, SearchConfig
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.ingest.config import IngestConfig
from ray_jobs.ingest.job import run as ingest
from ray_jobs.models.embedder import EmbedderConfig
from ray_jobs.models.for_queries import load_for_queries
from ray_jobs.runtime import session
from ray_jobs.storage import open_storage

MODES: tuple[Mode, ...] = ("dense", "lexical", "hybrid")
QUERY_BATCH = 256
QUICK_QUESTIONS = 40
QUICK_PASSAGES = 300

# Every figure of the table, and whether it counts for the average of the four sets.
MEASURES: dict[str, tuple[Callable[[list[str], dict[str, int]], float], bool]] = {
    "nDCG@10": (lambda ranked, grades: ndcg(ranked, grades), True),
    "hit@1": (lambda ranked, grades: hit(ranked, grades, 1), True),
    "hit@10": (lambda ranked, grades: hit(ranked, grades, 10), False),
}
EVALUATED: tuple[tuple[Callable[[], Collection], tuple[str, ...]], ...] = (
    (lambda: scifact("test"), ("nDCG@10",)),
    (lambda: classic("ir_cranfield", "Cranfield"), ("nDCG@10",)),
    (lambda: classic("ir_cisi", "CISI"), ("nDCG@10",)),
    (lambda: squad("squad_v1_dev", "SQuAD v1 dev"), ("hit@1", "hit@10")),
)


def measure(quick: bool) -> list[Table]:
    """Ingest and search the four sets; returns the table."""
    rows: list[list[Cell]] = []
    counted: dict[Mode, list[float]] = {mode: [] for mode in MODES}
    with tempfile.TemporaryDirectory() as folder, session():
        for load, names in EVALUATED:
            collection = smaller(load()) if quick else load()
            with ingested(collection, Path(folder)) as snapshot:
                ranked = {mode: rankings(snapshot, collection, SearchConfig(mode=mode)) for mode in MODES}
            for name in names:
                values = {mode: score(ranked[mode], collection, name) for mode in MODES}
                rows.append(
                    [collection.name, len(collection.passages), len(collection.questions), name, *_shown(values)]
                )
                if MEASURES[name][1]:
                    for mode in MODES:
                        counted[mode].append(values[mode])
    averages = {mode: mean(values) for mode, values in counted.items()}
    rows.append(["average of the four", "", "", "nDCG@10, for SQuAD hit@1", *_shown(averages)])
    return [
        Table(
            "Quality of retrieval, default configuration",
            ["set", "documents", "questions", "measure", *MODES],
            rows,
            notes=(
                "A document scores as its best chunk. nDCG with linear gains, as in trec_eval. The fusion was chosen "
                "on SciFact train and squadshifts only (tests/bench/tune_fusion.py).",
            ),
        )
    ]


@contextmanager
def ingested(collection: Collection, folder: Path, embedder: EmbedderConfig | None = None) -> Iterator[Snapshot]:
    """The collection in an index made by the ingest job with its default configuration, or with another embedder."""
    name = re.sub(r"[^a-z0-9]+", "-", collection.name.lower())
    path = folder / "sources" / f"{name}.parquet"
    write_parquet(collection.passages, path)
    config = IngestConfig(
        sources=(str(path),), index=name, store=str(folder / "store"), embedder=embedder or EmbedderConfig()
    )
    summary = ingest(config)
    counts = summary.counts
    if counts.indexed + counts.empty != len(collection.passages):
        raise RuntimeError(f"{collection.name}: {counts.indexed} of {len(collection.passages)} documents were indexed")
    yield Snapshot.open(open_storage(config.store), name)


def rankings(snapshot: Snapshot, collection: Collection, config: SearchConfig) -> list[list[str]]:
    """Document ids for every question, best first."""
    embedder = load_for_queries(None, snapshot.manifest.embedder)
    texts = [question.text for question in collection.questions]
    return [
        [found.doc_id for found in hits]
        for start in range(0, len(texts), QUERY_BATCH)
        for hits in snapshot.search(texts[start : start + QUERY_BATCH], config, embedder)
    ]


def score(ranked: list[list[str]], collection: Collection, name: str) -> float:
    """The mean of one measure over all questions."""
    measure_one = MEASURES[name][0]
    pairs = zip(ranked, collection.questions, strict=True)
    return mean([measure_one(documents, question.relevant) for documents, question in pairs])


def smaller(collection: Collection) -> Collection:
    """A part that runs in seconds: some questions, their documents, and others to tell them from."""
    questions = collection.questions[:QUICK_QUESTIONS]
    needed = {doc for question in questions for doc in question.relevant}
    others = [passage for passage in collection.passages if passage.id not in needed][:QUICK_PASSAGES]
    passages = [passage for passage in collection.passages if passage.id in needed] + others
    return replace(collection, passages=passages, questions=questions)


def _shown(values: Mapping[Mode, float]) -> list[str]:
    return [f"{values[mode]:.4f}" for mode in MODES]
