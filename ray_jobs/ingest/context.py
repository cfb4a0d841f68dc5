"""One ingest run under way: what it was asked, what it found, and how much of the cluster it may take."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property

from ray_jobs.index.manifest import Manifest, RecallReport
from ray_jobs.ingest.changes import Changes
from ray_jobs.ingest.config import IngestConfig
from ray_jobs.ingest.findings import Findings
from ray_jobs.ingest.plan import SourcePlan, partition_count, plan_sources, shard_count
from ray_jobs.ingest.receipts import EmbeddedGroup
from ray_jobs.ingest.record import Record, StageWatch
from ray_jobs.ingest.stage import Reading
from ray_jobs.ingest.stage_record import Places
from ray_jobs.ingest.usage import Used
from ray_jobs.ingest.work import PieceLimits, Place, Work
from ray_jobs.progress import Progress
from ray_jobs.runtime import ClusterSize, Needs
from ray_jobs.storage import Storage, new_id

ONE_CPU = Needs()


@dataclass
class Run:
    """One run under way."""

    storage: Storage
    config: IngestConfig
    plan: SourcePlan
    before: Manifest | None  # the live snapshot when the run began
    cluster: ClusterSize
    progress: Progress
    rebuilds: bool = True  # False: what has not changed stays in its shards
    job_id: str = field(default_factory=new_id)
    started: float = field(default_factory=time.monotonic)
    found: Counter[str] = field(default_factory=Counter)  # by stage, pieces that an earlier run had finished
    command: str = "ingest"
    findings: Findings = field(default_factory=Findings)

    @cached_property
    def record(self) -> Record:
        """What it leaves for those who look at it."""
        return Record(self.config.index, self.job_id)

    @cached_property
    def work(self) -> Work:
        """What runs that build on the same snapshot have finished."""
        return Work(self.storage, self.config.index, self.parent)

    @property
    def place(self) -> Place:
        """Where it writes."""
        resources = self.config.resources
        limits = PieceLimits(resources.piece_seconds, resources.piece_retries)
        return Place(self.config.store, self.config.index, self.parent, limits)

    @property
    def reading(self) -> Reading:
        """What is done to documents as they are read."""
        return Reading(self.config.filters, self.config.mask, self.config.limits)

    @property
    def parent(self) -> int:
        """The snapshot that it builds on, 0 for none."""
        return self.before.number if self.before else 0

    @classmethod
    def over(
        cls,
        storage: Storage,
        before: Manifest,
        changes: Changes,
        cluster: ClusterSize,
        progress: Progress,
        command: str,
    ) -> Run:
        """A run that reads no source: it changes what the snapshot holds, under the configuration that made it."""
        made_by = IngestConfig.model_validate(before.config)
        once = {"prune": False, "retrain": False, "retry_dead_letters": False}
        config = made_by.model_copy(update={"store": storage.uri, **once})
        plan = plan_sources(changes, config.group_bytes)
        return cls(storage, config, plan, before, cluster, progress, rebuilds=False, command=command)

    def stage(
        self, name: str, pieces: int, needs: Needs = ONE_CPU, actors: int | None = None
    ) -> AbstractContextManager[StageWatch]:
        """A stage of so many pieces, each of which needs so much, or is made by one of the `actors`."""
        room = actors or max(1, self.cluster.room(needs.cpus, needs.gpus, needs.resources))
        return self.record.stage(name, pieces, Places(min(max(1, pieces), room), needs.cpus, needs.gpus))

    def kept(self) -> AbstractContextManager[None]:
        """Keep its record in the store as long as it goes on."""
        return self.record.kept(
            self.storage,
            self.config,
            command=self.command,
            builds_on=self.parent,
            sources=self.plan.changes.fresh,
            bytes=self.plan.bytes,
            cpus=self.cluster.cpus,
            gpus=self.cluster.gpus,
        )

    def used(self) -> Used:
        """What it has used until now."""
        return Used.of(self.record.usage, self.record.elapsed, self.cluster.cpus, self.cluster.gpus)

    def measured(self, recall: RecallReport) -> None:
        """Recall was measured at one nprobe."""
        self.findings.recalls.append(recall)
        self.record.event("recall", **recall.model_dump())

    def timed(self, name: str) -> AbstractContextManager[None]:
        """A stage that this process does by itself."""
        return self.record.driver_stage(name)

    @cached_property
    def partitions(self) -> int:
        """Hash partitions of document ids: those of the snapshot before, as long as it is built on."""
        if self.before is not None and not self.rebuilds:
            return len(self.before.ledger)
        stored = 0 if self.before is None else sum(file.size for file in self.before.documents)
        return partition_count(self.plan.bytes + stored)

    def shard_count(self, embedded: Sequence[EmbeddedGroup]) -> int:
        """How many shards the embedded groups fill."""
        rows, size = sum(group.rows for group in embedded), sum(group.bytes for group in embedded)
        return shard_count(self.config.shards, rows, size, self.config.shard_bytes)

    def embed_cpus(self) -> int:
        """CPUs of one embedding actor, never more than a machine has."""
        return min(self.config.resources.embed_cpus or self.cluster.actor_cpus, self.cluster.largest)

    def reading_needs(self) -> Needs:
        """What one task takes that reads documents."""
        resources = self.config.resources
        return Needs(self._task_cpus(resources.stage_cpus), resources=resources.stage_on)

    def embedding_needs(self, device: str) -> Needs:
        """What one embedding actor takes."""
        resources = self.config.resources
        if device == "cuda":
            return Needs(resources.embed_cpus or 1, resources.embed_gpus, resources.embed_on)
        return Needs(self.embed_cpus(), resources=resources.embed_on)

    def building_needs(self) -> Needs:
        """What one task takes that builds a shard."""
        resources = self.config.resources
        return Needs(self._task_cpus(resources.build_cpus), resources=resources.build_on)

    def _task_cpus(self, wished: float) -> float:
        """CPUs of one task: as wished, never more than a machine has, since Ray would wait for more for ever."""
        return min(wished, self.cluster.largest)
