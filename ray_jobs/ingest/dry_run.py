"""What a run would do: read, which index type and why, disk and memory a shard, expected time; from a small sample.

Guaranteed: nothing is written to the store. Not guaranteed: the estimates; they extrapolate from a sample of the
sources, and from the speed of this machine alone.
"""

from __future__ import annotations

import os
import time

from pydantic import BaseModel, ConfigDict

from ray_jobs.corpus.chunking import Chunker
from ray_jobs.corpus.document import Document
from ray_jobs.corpus.readers import read_part
from ray_jobs.corpus.sources import list_sources
from ray_jobs.index.factory import bytes_a_vector, choose
from ray_jobs.ingest.config import IngestConfig
from ray_jobs.ingest.plan import SourcePlan, plan_sources, shard_count
from ray_jobs.ingest.preflight import check_choices
from ray_jobs.ingest.seen import SEEN_SCHEMA, compare
from ray_jobs.models.embedder import Embedder, choose_engine
from ray_jobs.storage import open_storage

SAMPLE_GROUPS = 8
SAMPLE_CHARACTERS = 1 << 20
SAMPLE_CHUNKS = 128
_POSTING_BYTES = 6  # a row number and a frequency
_POSTINGS_A_CHARACTER = 1 / 9  # distinct terms of English text; Chinese has more


class IngestPlan(BaseModel):
    """The plan of a run, with estimates from a sample."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: str
    sources: int
    source_bytes: int
    formats: dict[str, int]  # sources a format; "" where no reader knows it
    groups: int
    sampled_documents: int
    documents: int
    chunks: int
    embedder: str
    engine: str
    dimension: int
    index_type: str
    index_type_reason: str
    shards: int
    shard_disk: int  # bytes
    shard_memory: int  # bytes that stay resident while it is searched
    chunks_per_second: float
    cpus: int
    seconds: float

    def lines(self) -> list[str]:
        """The plan as people read it."""
        formats = ", ".join(
            f"{number:,} {name or 'of unknown format'}" for name, number in sorted(self.formats.items())
        )
        return [
            f"plan for {self.index}; nothing was written",
            f"sources    {self.sources:,} ({formats}), {self.source_bytes / 1e6:,.1f} MB, in {self.groups:,} groups",
            f"documents  about {self.documents:,}, {self.chunks:,} chunks (by a sample of {self.sampled_documents:,})",
            f"embedder   {self.embedder} ({self.engine}), {self.dimension} dimensions",
            f"index      {self.index_type}: {self.index_type_reason}",
            f"shards     {self.shards}, each about {self.shard_disk / 1e6:,.1f} MB on disk, "
            f"{self.shard_memory / 1e6:,.1f} MB in memory when searched",
            f"time       about {self.seconds:,.0f} s at {self.chunks_per_second:,.0f} chunks/s on {self.cpus} CPUs",
        ]


def dry_run(config: IngestConfig) -> IngestPlan:
    """Estimate a run; raises what the run itself would raise for its sources, model and configuration."""
    files = list(list_sources(config.sources, config.id_prefix))
    plan = plan_sources(compare(files, SEEN_SCHEMA.empty_table()), config.group_bytes)
    storage = open_storage(config.store)
    chosen = choose_engine(config.embedder, storage)
    embedder = Embedder.load(chosen, storage)
    check_choices(config, embedder)
    chunker = Chunker(config.chunking, embedder.tokenizer, embedder.max_tokens)
    documents, share = _sample(plan)
    chunks = [chunk for found in chunker.chunk_all(documents) for chunk in found]
    speed = _speed(embedder, [chunk.embedded_text for chunk in chunks[:SAMPLE_CHUNKS]])
    rows = max(1, round(len(chunks) / share))
    characters = sum(len(chunk.text) for chunk in chunks) / max(1, len(chunks))
    text = rows * characters * 1.6  # identity, headings and metadata beside the text
    vectors = rows * embedder.dimension * 2
    shards = shard_count(config.shards, rows, round(text + vectors), config.shard_bytes)
    index_type = choose(config.index_type, rows, embedder.dimension)
    postings = characters * _POSTINGS_A_CHARACTER * _POSTING_BYTES
    memory = rows * (bytes_a_vector(index_type, embedder.dimension) + postings)
    formats: dict[str, int] = {}
    for file in files:
        formats[file.format] = formats.get(file.format, 0) + 1
    return IngestPlan(
        index=config.index,
        sources=plan.files,
        source_bytes=plan.bytes,
        formats=formats,
        groups=len(plan.groups),
        sampled_documents=len(documents),
        documents=round(len(documents) / share),
        chunks=rows,
        embedder=embedder.identity.model,
        engine=f"{embedder.identity.engine} {embedder.identity.precision}",
        dimension=embedder.dimension,
        index_type=index_type.factory,
        index_type_reason=index_type.reason,
        shards=shards,
        shard_disk=round((text + vectors + memory) / shards),
        shard_memory=round(memory / shards),
        chunks_per_second=round(speed, 1),
        cpus=os.cpu_count() or 1,
        seconds=round(rows / speed, 1) if speed else 0.0,
    )


def _sample(plan: SourcePlan) -> tuple[list[Document], float]:
    """Documents of some groups spread over the plan, and the share of all source bytes that they come from."""
    step = max(1, len(plan.groups) // SAMPLE_GROUPS)
    documents: list[Document] = []
    seen = 0
    for group in plan.groups[::step]:
        for part in group:
            documents += [item for item in read_part(part) if isinstance(item, Document)]
            seen += part.size
            if sum(len(document.text) for document in documents) >= SAMPLE_CHARACTERS:
                return documents, seen / max(1, plan.bytes)
    return documents, max(seen, 1) / max(1, plan.bytes)


def _speed(embedder: Embedder, texts: list[str]) -> float:
    """Chunks a second of this machine, once warm; 0 without a chunk."""
    if not texts:
        return 0.0
    embedder.encode_documents(texts[:16])
    started = time.monotonic()
    embedder.encode_documents(texts)
    return len(texts) / (time.monotonic() - started)
