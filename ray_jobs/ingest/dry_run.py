"""What a run would do and take: index type and why, disk, memory and time; from a run in small.

Guaranteed: nothing is written to the store. Not guaranteed: the estimates, see `forecast`; nor that nothing of what is
read is in the live snapshot already: a first run is assumed.
"""

from __future__ import annotations

import os
import resource
import time

import numpy as np
from pydantic import BaseModel, ConfigDict

from ray_jobs.corpus.sources import list_sources
from ray_jobs.index.ladder import Wanted, choose
from ray_jobs.ingest import forecast, trial
from ray_jobs.ingest.changes import compared
from ray_jobs.ingest.config import IngestConfig
from ray_jobs.ingest.forecast import Expected, Machine
from ray_jobs.ingest.plan import SourcePlan, plan_sources, shard_count
from ray_jobs.ingest.preflight import check_choices
from ray_jobs.ingest.trial import Trial
from ray_jobs.models.embedder import Embedder, choose_engine
from ray_jobs.runtime import ClusterSize
from ray_jobs.storage import open_storage

_COMPARED = 2_048  # vectors with each other, to see how fast this machine is


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
    disk: int  # bytes of the snapshot
    serving_memory: int  # bytes that stay resident where it is searched, over all shards
    worker_memory: int  # bytes of the largest worker of the run
    chunks_per_second: float  # of all embedders
    cpus: int
    seconds: dict[str, float]  # a stage

    def lines(self) -> list[str]:
        """The plan as people read it."""
        formats = ", ".join(
            f"{number:,} {name or 'of unknown format'}" for name, number in sorted(self.formats.items())
        )
        stages = ", ".join(f"{name} {value:,.0f} s" for name, value in self.seconds.items() if value >= 0.5)
        return [
            f"plan for {self.index}; nothing was written",
            f"sources    {self.sources:,} ({formats}), {self.source_bytes / 1e6:,.1f} MB, in {self.groups:,} groups",
            f"documents  about {self.documents:,}, {self.chunks:,} chunks (by a sample of {self.sampled_documents:,})",
            f"embedder   {self.embedder} ({self.engine}), {self.dimension} dimensions",
            f"index      {self.index_type}: {self.index_type_reason}",
            f"disk       about {self.disk / 1e6:,.1f} MB in {self.shards} shards",
            f"memory     about {self.serving_memory / 1e6:,.1f} MB where it is searched, "
            f"{self.worker_memory / 1e6:,.0f} MB of the largest worker of the run",
            f"time       about {sum(self.seconds.values()):,.0f} s on {self.cpus} CPUs, "
            f"{self.chunks_per_second:,.0f} chunks/s: {stages}",
        ]


def dry_run(config: IngestConfig) -> IngestPlan:
    """Estimate a run; raises what the run itself would raise for its sources, model and configuration."""
    with compared(list_sources(config.sources, config.id_prefix)) as changes:
        return _estimated(config, plan_sources(changes, config.group_bytes))


def _estimated(config: IngestConfig, plan: SourcePlan) -> IngestPlan:
    cluster = ClusterSize(os.cpu_count() or 1, 0)
    threads = min(config.resources.embed_cpus or cluster.actor_cpus, cluster.largest)
    started = time.monotonic()
    embedder = _load(config, threads)
    load_seconds = time.monotonic() - started
    check_choices(config, embedder)
    tried = trial.run(config, plan.changes, embedder)
    machine = Machine(
        workers=max(1, int(cluster.cpus / min(config.resources.stage_cpus, cluster.largest))),
        embedders=config.resources.embed_actors or max(1, cluster.room(threads)),
        threads=threads,
        load_seconds=load_seconds,
        comparisons=_comparisons(embedder.dimension),
        resident=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
    )
    return _planned(config, plan, embedder, tried, machine)


def _planned(config: IngestConfig, plan: SourcePlan, embedder: Embedder, tried: Trial, machine: Machine) -> IngestPlan:
    expected = _expected(config, plan, tried, embedder.dimension)
    stages = forecast.seconds(tried, expected, machine)
    return IngestPlan(
        index=config.index,
        sources=plan.files,
        source_bytes=plan.bytes,
        formats=plan.changes.formats(),
        groups=len(plan.groups),
        sampled_documents=tried.documents,
        documents=round(tried.documents / expected.share),
        chunks=expected.rows,
        embedder=embedder.identity.model,
        engine=f"{embedder.identity.engine} {embedder.identity.precision}",
        dimension=embedder.dimension,
        index_type=expected.index_type.factory,
        index_type_reason=expected.index_type.reason,
        shards=expected.shards,
        disk=forecast.disk(tried, expected),
        serving_memory=forecast.serving_memory(tried, expected),
        worker_memory=forecast.worker_memory(tried, expected, machine),
        chunks_per_second=round(tried.chunks_per_second * machine.embedders, 1),
        cpus=os.cpu_count() or 1,
        seconds={name: round(value, 1) for name, value in stages.items()},
    )


def _expected(config: IngestConfig, plan: SourcePlan, tried: Trial, dimension: int) -> Expected:
    """What the whole corpus comes to, where its parts are as those of the trial."""
    share = max(tried.source_bytes, 1) / max(plan.bytes, 1)
    rows = max(1, round(tried.chunks / share))
    shards = shard_count(config.shards, rows, round(tried.text_bytes / share), config.shard_bytes)
    wanted = Wanted(rows, dimension, shards, config.memory_budget, config.recall_target)
    return Expected(share, rows, dimension, len(plan.groups), shards, choose(config.index_type, wanted))


def _load(config: IngestConfig, threads: int) -> Embedder:
    """The embedder with as many threads as it gets in a run."""
    storage = open_storage(config.store)
    chosen = choose_engine(config.embedder, storage)
    if chosen.threads is None and chosen.device == "cpu":
        chosen = chosen.model_copy(update={"threads": threads})
    return Embedder.load(chosen, storage)


def _comparisons(dimension: int) -> float:
    """Numbers that this machine compares a second when it looks for the nearest of some vectors."""
    import faiss

    vectors = np.random.default_rng(0).standard_normal((_COMPARED, dimension), np.float32)
    started = time.monotonic()
    faiss.knn(vectors, vectors, 1, metric=faiss.METRIC_INNER_PRODUCT)
    return dimension * _COMPARED**2 / (time.monotonic() - started)
