"""How good are the models that Tandem carries?

Nothing here was trained on what is asked here: SQuAD v1 dev and the test queries of SciFact are for evaluation only.
Intervals are 95 % bootstrap intervals over questions; where a figure is compared with another, of the same questions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from corpora import Collection, read, scifact, squad
from metrics import hit, ndcg
from quality import ingested, rankings, smaller
from table import Cell, Table, told

from ray_jobs.answer.defaults import READER, RERANKER, rerank_weight
from ray_jobs.index.reranking import Reranking
from ray_jobs.index.search import SearchConfig
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.models.for_queries import load_for_queries
from ray_jobs.models.reader import Reader, ReaderConfig
from ray_jobs.models.reader_evaluation import Reading, judge
from ray_jobs.models.reader_metrics import exact_match, f1
from ray_jobs.models.reranker import Reranker, RerankerConfig
from ray_jobs.runtime import session

RERANKED = 5  # every fifth question of SQuAD: 2,114 of them, 50 passages each
_DRAWS = 2_000

Gain = Callable[[list[str], dict[str, int]], float]


def measure(quick: bool) -> list[Table]:
    """Evaluate reader, reranker and embedder; returns the tables."""
    scarce = smaller if quick else _whole
    with tempfile.TemporaryDirectory() as folder, session():
        with ingested(scarce(squad("squad_v1_dev", "SQuAD v1 dev")), Path(folder)) as snapshot:
            collection = scarce(squad("squad_v1_dev", "SQuAD v1 dev"))
            tables = [told(_reader(snapshot, collection))]
            rows = [_reranked(snapshot, every(collection, RERANKED), lambda *given: hit(*given, 1), "hit@1")]
        with ingested(scarce(scifact("test")), Path(folder)) as snapshot:
            rows.append(_reranked(snapshot, scarce(scifact("test")), ndcg, "nDCG@10"))
        tables.append(told(_reranker_table(rows)))
    return tables


def every(collection: Collection, step: int) -> Collection:
    """Every so many-th question, over the whole corpus."""
    return replace(collection, questions=collection.questions[::step])


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean (percentiles, seeded)."""
    given = np.asarray(values, np.float64)
    random = np.random.default_rng(0)
    means = [float(given[random.integers(0, len(given), len(given))].mean()) for _ in range(_DRAWS)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _reader(snapshot: Snapshot, collection: Collection) -> Table:
    """Answers on gold passages, and refusals on the best-ranked wrong ones."""
    texts = {passage.id: passage.text for passage in collection.passages}
    answers = {str(row["id"]): _texts(row["answers"]) for row in read("squad_v1_dev/questions")}
    found = rankings(snapshot, collection, SearchConfig(by="document", k=5))
    gold, wrong = [], []
    for question, ranked in zip(collection.questions, found, strict=True):
        (right,) = question.relevant
        gold.append((question.text, texts[right]))
        wrong.append((question.text, texts[next(document for document in ranked if document != right)]))
    reader = Reader.load(ReaderConfig(model=READER))
    spans, other = reader.read_pairs(gold), reader.read_pairs(wrong)
    known = [answers[question.id] for question in collection.questions]
    asked = [Reading(passage, own, span) for (_, passage), own, span in zip(gold, known, spans, strict=True)]
    refused = [Reading(passage, (), span) for (_, passage), span in zip(wrong, other, strict=True)]
    best = judge([*asked, *refused])
    card = judge([*asked, *refused], reader.threshold)
    overlaps = [f1(reading.said, reading.answers) for reading in asked]
    matches = [exact_match(reading.said, reading.answers) for reading in asked]
    return Table(
        f"The carried reader on SQuAD v1 dev, {len(asked):,} questions",
        ["", "value", "95 % interval"],
        [
            ["F1 on the gold passage", f"{100 * np.mean(overlaps):.1f}", _percent(interval(overlaps))],
            ["exact match on the gold passage", f"{100 * np.mean(matches):.1f}", _percent(interval(matches))],
            ["wrong passages refused, 90 % of right answers kept", _share(best.refused), ""],
            ["wrong passages refused, threshold of the card", _share(card.refused), ""],
            ["gold passages answered, threshold of the card", _share(card.answered), ""],
        ],
        notes=(
            "The wrong passage of a question is the one that hybrid search ranks best; a few of them hold the answer "
            "nevertheless. The card's threshold was chosen on the validation split of the training data.",
        ),
    )


def _reranked(snapshot: Snapshot, collection: Collection, gain: Gain, name: str) -> list[Cell]:
    """Hybrid search alone, and its 50 best chunks reranked."""
    config = SearchConfig(k=10)
    plain = rankings(snapshot, collection, config)
    reranker = Reranker.load(RerankerConfig(model=RERANKER))
    reranking = Reranking(reranker, weight=rerank_weight(reranker.identity.model, None))
    embedder = load_for_queries(None, snapshot.manifest.embedder)
    ordered = []
    for question in collection.questions:
        (hits,) = snapshot.search([question.text], reranking.wider(config), embedder)
        ordered.append([found.doc_id for found in reranking.apply(question.text, hits, config)])
    before, after = (
        [gain(ranked, question.relevant) for ranked, question in zip(found, collection.questions, strict=True)]
        for found in (plain, ordered)
    )
    delta = [new - old for new, old in zip(after, before, strict=True)]
    low, high = interval(delta)
    return [
        collection.name,
        len(collection.questions),
        name,
        f"{np.mean(before):.4f}",
        f"{np.mean(after):.4f}",
        f"{np.mean(delta):+.4f} ({low:+.4f} to {high:+.4f})",
    ]


def _reranker_table(rows: Sequence[Sequence[Cell]]) -> Table:
    return Table(
        "The carried reranker over the 50 best chunks of hybrid search",
        ["set", "questions", "measure", "hybrid", "reranked", "difference (95 %)"],
        rows,
        notes=(f"Of SQuAD every {RERANKED}th question, over all passages.",),
    )


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _whole(collection: Collection) -> Collection:
    return collection


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _percent(bounds: tuple[float, float]) -> str:
    return f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}"
