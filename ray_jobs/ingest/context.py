"""One ingest run under way: what it was asked, what it found, and how much of the cluster it may take."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ray_jobs.index import layout
from ray_jobs.index.manifest import Manifest
from ray_jobs.ingest.config import IngestConfig
from ray_jobs.ingest.plan import SourcePlan, shard_count
from ray_jobs.ingest.receipts import EmbeddedGroup
from ray_jobs.progress import Progress
from ray_jobs.runtime import ClusterSize
from ray_jobs.storage import Storage, new_id


@dataclass
class Run:
    """One run under way."""

    storage: Storage
    config: IngestConfig
    plan: SourcePlan
    before: Manifest | None  # the live snapshot when the run began
    cluster: ClusterSize
    progress: Progress
    job_id: str = field(default_factory=new_id)
    started: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)  # a stage
    events: list[dict[str, object]] = field(default_factory=list)  # stages as they ended

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the time spent inside to the stage `name`."""
        started = time.monotonic()
        yield
        seconds = time.monotonic() - started
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        ended = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.events.append({"time": ended, "stage": name, "seconds": round(seconds, 3)})

    def shard_count(self, embedded: Sequence[EmbeddedGroup]) -> int:
        """How many shards the embedded groups fill."""
        rows, size = sum(group.rows for group in embedded), sum(group.bytes for group in embedded)
        return shard_count(self.config.shards, rows, size, self.config.shard_bytes)

    def embed_cpus(self) -> int:
        """CPUs of one embedding actor, never more than a machine has."""
        return min(self.config.resources.embed_cpus or self.cluster.actor_cpus, self.cluster.largest)

    def embed_resources(self, device: str) -> tuple[int, float, float]:
        """Embedding actors at most, and CPUs and GPUs of each."""
        wished = self.config.resources.embed_actors
        if device == "cuda":
            return wished or max(1, self.cluster.gpus), 1, 1
        cpus = self.embed_cpus()
        return wished or max(1, self.cluster.room(cpus)), cpus, 0

    def task_cpus(self, wished: float) -> float:
        """CPUs of one task: as wished, never more than a machine has, since Ray would wait for more for ever."""
        return min(wished, self.cluster.largest)

    def clean_up(self) -> None:
        """Remove what was only in flight.

        No manifest names what a killed run leaves, nor what a worker still writes that an interruption reaches late.
        """
        folder = layout.run_folder(self.job_id)
        for kind in ("ids", "groups"):
            for item in list(self.storage.list(f"{folder}/{kind}")):
                self.storage.delete(item.key)
