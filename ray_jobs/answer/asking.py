"""Ask: retrieve, answer, and check the answer against what was retrieved.

Guaranteed: every citation of the result cuts its quote exactly from a passage that was retrieved; an answer whose
citations do not hold is not returned. Not guaranteed: that retrieval found what the corpus knows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from ray_jobs.answer.evidence import calibration_for
from ray_jobs.answer.extractive import ExtractiveReader, ReaderConfig, SentenceEmbedder
from ray_jobs.answer.grounding import problems
from ray_jobs.answer.protocol import Answer, AnswerEvent, Final, Generator, Passage
from ray_jobs.errors import ModelError
from ray_jobs.index.hits import Hit
from ray_jobs.index.reranking import Reranking
from ray_jobs.index.search import SearchConfig
from ray_jobs.index.snapshot import QueryEmbedder, Snapshot


class AskEmbedder(QueryEmbedder, SentenceEmbedder, Protocol):
    """An embedder of queries and of sentences."""


@dataclass(frozen=True)
class Asked:
    """An answer with what it was made from and how long each step took."""

    question: str
    answer: Answer
    passages: tuple[Passage, ...]
    timings: dict[str, float]  # seconds a step
    index: str
    snapshot: int

    def to_dict(self) -> dict[str, object]:
        """The answer as JSON shows it; passages by name and place, without their text."""
        return {
            "question": self.question,
            "answer": self.answer.text,
            "grounded": self.answer.grounded,
            "citations": [asdict(citation) for citation in self.answer.citations],
            "passages": [
                {"number": item.number, "chunk_id": item.chunk_id, "score": item.score} for item in self.passages
            ],
            "timings": self.timings,
            "index": self.index,
            "snapshot": self.snapshot,
        }


def ask(
    snapshot: Snapshot,
    question: str,
    search: SearchConfig,
    embedder: AskEmbedder,
    generator: Generator,
    seen: Callable[[AnswerEvent], None] = lambda _: None,
    reranking: Reranking | None = None,
) -> Asked:
    """Answer `question` from the chunks that `search` finds; `seen` gets every event as it comes.

    With `reranking`, more is retrieved and the best of it by the reranker is answered from. Raises UsageError for an
    empty question, one too long for the reranker, or a filter that does not fit, ModelError when the generator cites
    what it was not given.
    """
    timings = {}
    started = time.perf_counter()
    (hits,) = snapshot.search([question], search if reranking is None else reranking.wider(search), embedder)
    timings["retrieve"] = time.perf_counter() - started
    if reranking is not None:
        started = time.perf_counter()
        hits = reranking.apply(question, hits, search)
        timings["rerank"] = time.perf_counter() - started
    started = time.perf_counter()
    passages = to_passages(hits)
    answer = Answer("", (), False)
    for event in generator.stream(question, passages):
        seen(event)
        if isinstance(event, Final):
            answer = event.answer
    wrong = problems(answer.text, answer.citations, passages)
    if wrong:
        raise ModelError(f"the generator's answer does not hold: {wrong[0]}; use another generator")
    timings["answer"] = time.perf_counter() - started
    manifest = snapshot.manifest
    return Asked(question, answer, tuple(passages), timings, manifest.index, manifest.number)


def extractive_reader(snapshot: Snapshot, embedder: AskEmbedder, config: ReaderConfig | None = None) -> Generator:
    """The generator that quotes, with the statistics of `snapshot` and the calibration of its embedder."""
    return ExtractiveReader(
        embedder,
        snapshot.analyzer,
        lambda terms: snapshot.partition.statistics(terms, None).lexical,
        calibration_for(snapshot.manifest.embedder.model),
        config,
    )


def to_passages(hits: Sequence[Hit]) -> list[Passage]:
    """Hits as numbered passages."""
    return [
        Passage(
            number=hit.rank,
            doc_id=hit.doc_id,
            chunk_id=hit.chunk_id,
            title=hit.title,
            heading=hit.heading,
            page=hit.page,
            page_breaks=tuple(hit.page_breaks),
            source=hit.source,
            start=hit.start,
            end=hit.end,
            text=hit.text,
            score=hit.score,
        )
        for hit in hits
    ]
