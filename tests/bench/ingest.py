"""How fast is `tandem ingest`, and against whom?

Every contender gets the same chunks. Peers are timed on random samples, in rounds with Tandem's own embedder (so that
what else runs on the machine hits all alike) before, between and after the runs of the whole job.
Not measured: peers over the whole corpus (their rate does not depend on its size), several machines.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from corpora import Passage, documentation, write_parquet
from ingest_peers import Contender, Tandem, Vectors, contenders
from table import Cell, Table

from ray_jobs.corpus.chunking import Chunker, ChunkingConfig
from ray_jobs.corpus.document import RawDocument, make_document
from ray_jobs.ingest.config import IngestConfig
from ray_jobs.ingest.job import run as ingest
from ray_jobs.runtime import session


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    chunks: int  # of the whole job, at least
    jobs: int
    rounds: int  # around the jobs, in all
    sample: int  # chunks of a round


FULL = Size(chunks=20_000, jobs=2, rounds=9, sample=512)
QUICK = Size(chunks=400, jobs=1, rounds=2, sample=48)


@dataclass
class Rounds:
    """Seconds a chunk of each contender in each round."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    cosines: list[float] = field(default_factory=list)  # Tandem's vectors to (a)'s float32

    def rate(self, name: str) -> float:
        """Chunks a second, the median over the rounds."""
        return 1 / statistics.median(self.seconds[name])

    def ratios(self, name: str, to: str) -> list[float]:
        """How many times faster `name` was than `to`, round by round."""
        return [other / own for own, other in zip(self.seconds[name], self.seconds[to], strict=True)]


@dataclass(frozen=True)
class Job:
    """One run of the whole job."""

    documents: int
    chunks: int
    seconds: float
    stages: dict[str, float]


def measure(quick: bool) -> list[Table]:
    """Run the job and the rounds; returns the tables."""
    size = QUICK if quick else FULL
    sample = [passage for _, passage in zip(range(40), documentation(), strict=False)]
    tandem, limit, peers = contenders(_chunks(sample, None)[:192])
    passages, chunks = _corpus(tandem, size.chunks)
    everyone: list[Contender] = [tandem, limit, *peers]
    rounds, jobs = Rounds(), []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "documentation.parquet"
        write_parquet(passages, source)
        started = time.perf_counter()
        with session():
            ray_start = time.perf_counter() - started
            for number in range(size.jobs + 1):
                first, last = (size.rounds * n // (size.jobs + 1) for n in (number, number + 1))
                for turn in range(first, last):
                    _round(rounds, everyone, chunks, size.sample, turn)
                if number < size.jobs:
                    jobs.append(_job(source, Path(folder) / "store", f"run-{number}"))
    if any(job.chunks != len(chunks) for job in jobs):
        raise RuntimeError(f"the job made {jobs[0].chunks} chunks, the peers were given {len(chunks)}")
    return [_rates(jobs, rounds, tandem, everyone), _stages(jobs, ray_start), _precision(rounds)]


def _corpus(tandem: Tandem, wanted: int) -> tuple[list[Passage], list[str]]:
    """Documents with at least `wanted` chunks, and what the embedder sees of each chunk."""
    passages: list[Passage] = []
    chunks: list[str] = []
    waiting: list[Passage] = []
    for passage in documentation():
        waiting.append(passage)
        if len(waiting) == 64:
            chunks += _chunks(waiting, tandem)
            passages += waiting
            waiting = []
            if len(chunks) >= wanted:
                break
    return passages, chunks


def _chunks(passages: Sequence[Passage], tandem: Tandem | None) -> list[str]:
    """What the embedder sees of each chunk, cut as the job cuts by default; whole documents without an embedder."""
    if tandem is None:
        return [f"{passage.title}\n{passage.text}"[:1000] for passage in passages]
    chunker = Chunker(ChunkingConfig(), tandem.embedder.tokenizer, tandem.embedder.max_tokens)
    documents = [
        make_document(RawDocument(text=p.text, title=p.title), p.id, "documentation", "parquet") for p in passages
    ]
    return [chunk.embedded_text for found in chunker.chunk_all(documents) for chunk in found]


def _round(rounds: Rounds, everyone: Sequence[Contender], chunks: Sequence[str], size: int, turn: int) -> None:
    """Time everyone on one random sample, each round in another order."""
    random = np.random.default_rng(turn)
    texts = [chunks[i] for i in random.choice(len(chunks), min(size, len(chunks)), replace=False).tolist()]
    vectors: dict[str, Vectors] = {}
    for place in random.permutation(len(everyone)).tolist():
        contender = everyone[place]
        seconds, vectors[contender.name] = contender.timed(texts)
        rounds.seconds.setdefault(contender.name, []).append(seconds / len(texts))
    tandem, reference = vectors[everyone[0].name], vectors[everyone[2].name]
    norms = np.linalg.norm(tandem, axis=1) * np.linalg.norm(reference, axis=1)
    rounds.cosines += ((tandem * reference).sum(1) / norms).tolist()


def _job(source: Path, store: Path, index: str) -> Job:
    started = time.perf_counter()
    summary = ingest(IngestConfig(sources=(str(source),), index=index, store=str(store)))
    seconds = time.perf_counter() - started
    return Job(summary.counts.indexed, summary.counts.chunks, seconds, summary.seconds)


def _rates(jobs: Sequence[Job], rounds: Rounds, tandem: Tandem, everyone: Sequence[Contender]) -> Table:
    job_rate = statistics.median(job.chunks / job.seconds for job in jobs)
    documents = statistics.median(job.documents / job.seconds for job in jobs)
    rows: list[list[Cell]] = [["`tandem ingest`, the whole job", f"{documents:.1f}", f"{job_rate:.1f}", "", ""]]
    for contender in everyone:
        rate = rounds.rate(contender.name)
        own = "" if contender is tandem else _spread(rounds.ratios(tandem.name, contender.name))
        rows.append([contender.name, "", f"{rate:.1f}", f"{job_rate / rate:.2f}", own])
    return Table(
        f"Ingest of {jobs[0].chunks:,} chunks ({jobs[0].documents:,} documents)",
        ["", "documents/s", "chunks/s", "the job is faster by", "Tandem's embedder is faster by (least to most)"],
        rows,
        notes=(
            "The job reads, cuts, embeds, indexes (vectors and words), verifies and commits, Ray's start apart; the "
            "others get the chunks ready cut. Same chunks for all, no other text splitter.",
            f"{len(rounds.seconds[tandem.name])} rounds of random samples around {len(jobs)} runs of the job; medians.",
        ),
    )


def _stages(jobs: Sequence[Job], ray_start: float) -> Table:
    names = list(jobs[0].stages)
    rows: list[list[Cell]] = [["Ray's start (not in the rates)", f"{ray_start:.1f}", ""]]
    total = statistics.median(job.seconds for job in jobs)
    for name in names:
        seconds = statistics.median(job.stages[name] for job in jobs)
        rows.append([name, f"{seconds:.1f}", f"{seconds / total:.1%}"])
    return Table("Where the job's time goes", ["stage", "seconds", "share"], rows)


def _precision(rounds: Rounds) -> Table:
    rows: list[list[Cell]] = [[f"{np.mean(rounds.cosines):.6f}", f"{np.min(rounds.cosines):.6f}", len(rounds.cosines)]]
    return Table("Cosine of Tandem's stored vectors to float32", ["mean", "least", "chunks"], rows)


def _spread(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
