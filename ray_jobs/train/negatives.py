"""The mining job: find the positives in the index, search every query, choose negatives, write, publish.

Guaranteed: every row is what it was and in the split in which it was, with its negatives beside it; a row to train on
gets no negative from a document that answers a row of validation or test, unless the data are split by query; what is
chosen keeps to the rules of data/mining.py; the set is there whole or not at all; the same command again does nothing.
Not guaranteed: the same negatives to the last row from another embedding engine, whose scores differ in rounding.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ray_jobs.progress import Progress, SilentProgress
from ray_jobs.runtime import ClusterSize, stream
from ray_jobs.storage import Storage, open_storage
from ray_jobs.train.data import prepared
from ray_jobs.train.data.kinds import KINDS
from ray_jobs.train.data.mine_config import MineConfig
from ray_jobs.train.data.mine_task import Block, MinedBlock, Miner, MineTask
from ray_jobs.train.data.mining_card import make_card, write
from ray_jobs.train.data.mining_plan import MiningPlan, Queries, plan
from ray_jobs.train.data.positives import Place
from ray_jobs.train.data.prepared import Prepared
from ray_jobs.train.making import DataSummary, MakingJob, make_once

Batch = dict[str, Any]
FOUND: TypeAdapter[list[tuple[str, Place]]] = TypeAdapter(list[tuple[str, Place]])


def run(config: MineConfig, progress: Progress | None = None) -> DataSummary:
    """Mine negatives for the rows that `config` names, or find that this was done before.

    Raises NotFoundError for a data set, index or model that does not exist, UsageError for an impossible request,
    RejectedError where no row got a negative, StorageError when the store refuses; in every case nothing is published.
    """
    storage = open_storage(config.store)
    # Workers may stand in another folder.
    config = config.model_copy(update={"store": storage.uri})
    planned = plan(config, storage)
    return make_once(
        storage,
        config.name,
        planned.digest,
        lambda cluster: _Job(storage, config, planned, cluster, progress or SilentProgress()),
    )


class Find:
    """Rows {shard} to {found: pairs of key and place}."""

    def __init__(self, task: MineTask) -> None:
        self._task = task

    @cached_property
    def _miner(self) -> Miner:
        # Not in the constructor: of an error there, Ray brings the driver no more than its text.
        return self._task.open()

    def __call__(self, batch: Batch) -> Iterator[Batch]:
        """Look for positives in the shards of a batch."""
        for shard in batch["shard"]:
            yield {"found": [FOUND.dump_json(self._miner.find(int(shard))).decode()]}


class Mine:
    """Rows {block} to {receipt: MinedBlock}; index and models stay open for as long as the stage lasts."""

    def __init__(self, task: MineTask) -> None:
        self._task = task

    @cached_property
    def _miner(self) -> Miner:
        return self._task.open()

    def __call__(self, batch: Batch) -> Iterator[Batch]:
        """Mine the blocks of a batch."""
        for block in map(Block.model_validate_json, batch["block"]):
            yield {"receipt": [self._miner.mine(block).model_dump_json()]}


class _Job(MakingJob):
    """One run of mining under way."""

    verb = "mined"

    def __init__(
        self, storage: Storage, config: MineConfig, planned: MiningPlan, cluster: ClusterSize, progress: Progress
    ) -> None:
        super().__init__(storage, cluster)
        self.config = config
        self.plan = planned
        self.progress = progress
        self.queries = Queries.read(planned.data)

    def run(self) -> Prepared:
        """All steps."""
        task = self._task()
        self.storage.create(task.wanted, self.queries.wanted.model_dump_json().encode())
        self._find(task)
        self.storage.create(task.forbidden, json.dumps(self._forbidden()).encode())
        blocks = self._mine(task)
        with self.progress.stage("write", 1) as stage, self.storage.scratch() as folder:
            published = self._write(blocks, folder)
            stage.advance(1)
        return published

    def _task(self) -> MineTask:
        data = self.plan.data
        return MineTask(
            config=self.config,
            snapshot=self.plan.manifest.number,
            files={name: data.file(name) for name in data.splits()},
            folder=self.folder,
            wanted=f"{self.folder}/wanted.json",
            forbidden=f"{self.folder}/forbidden.json",
            tokenizer=data.card.tokenizer,
            embedder=self.plan.embedder,
            reranker=self.plan.reranker,
        )

    def _find(self, task: MineTask) -> None:
        shards: list[dict[str, object]] = [{"shard": number} for number in range(len(self.plan.manifest.shards))]
        with self.progress.stage("find", len(shards)) as stage:
            actors = (1, max(1, min(len(shards), self.cluster.cpus)))
            for row in stream(shards, Find, arguments=(task,), actors=actors):
                self.queries.found(FOUND.validate_json(row["found"]))
                stage.advance(1)

    def _forbidden(self) -> list[str]:
        """Documents of validation and test; none where the corpus is shared by design."""
        split = self.plan.data.card.config.get("split")
        by_query = isinstance(split, dict) and split.get("by") == "query"
        return [] if by_query else self.queries.documents(("validation", "test"))

    def _mine(self, task: MineTask) -> list[MinedBlock]:
        """Every block, in order."""
        blocks = list(self.queries.blocks(self.config.block_queries))
        items: list[dict[str, object]] = [{"block": block.model_dump_json()} for block in blocks]
        most, cpus, gpus = self._resources()
        mined = []
        with self.progress.stage("mine", sum(len(block.rows) for block in blocks)) as stage:
            for row in stream(
                items, Mine, arguments=(task,), actors=(1, min(most, len(items))), num_cpus=cpus, num_gpus=gpus
            ):
                receipt = MinedBlock.model_validate_json(row["receipt"])
                stage.advance(receipt.rows, queries=receipt.rows, negatives=receipt.record.negatives)
                mined.append(receipt)
        return sorted(mined, key=lambda receipt: receipt.number)

    def _resources(self) -> tuple[int, float, float]:
        """Actors at most, and CPUs and GPUs of each."""
        if self.plan.on_gpu:
            return max(1, self.cluster.gpus), 1, 1
        cpus = self.cluster.actor_cpus
        return max(1, self.cluster.room(cpus)), cpus, 0

    def _write(self, blocks: list[MinedBlock], folder: Path) -> Prepared:
        written = write(self.storage, blocks, KINDS[self.config.output_kind], folder, self.plan.data.card)
        indexed = len(self.queries.places)
        card = make_card(self.config, self.plan, written, self.queries.positives, indexed)
        files = {split.path.name: split.path for split in written.values()}
        files[prepared.REJECTED] = self.storage.local(f"{self.plan.data.folder}/{prepared.REJECTED}")
        return self.publish(card, files, folder)
