"""The preparation job: plan, stage every part over the cluster, decide over all keys, write the splits, publish.

Guaranteed: what is prepared depends on inputs and configuration alone, to the byte: not on parts, workers or the order
in which they finish; a set is there whole or not at all; the same hash is not prepared again; every row of the inputs
is in a split, a duplicate, removed as a leak or for its document, or rejected with its number and reason. Texts are
held one batch at a time; the driver holds what keys.py says, some 80 bytes a row and 2 to 3 kB for a row that shares
bands with another. Not guaranteed: in whose tokens the card of a file that a training run has prepared counts: those of
its base.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ray_jobs.corpus.sketch import Banding
from ray_jobs.errors import TandemError
from ray_jobs.models.resolve import anchored, resolve
from ray_jobs.progress import Progress, SilentProgress
from ray_jobs.runtime import ClusterSize, stream
from ray_jobs.storage import Storage, open_storage
from ray_jobs.train.data import prepared, reporting
from ray_jobs.train.data.config import PrepareConfig
from ray_jobs.train.data.counting import Counted, TokenCounter
from ray_jobs.train.data.decide import decide
from ray_jobs.train.data.findings import Findings
from ray_jobs.train.data.keys import Keys
from ray_jobs.train.data.kind import schema_of
from ray_jobs.train.data.kinds import EVALUATION_KINDS, KINDS
from ray_jobs.train.data.planning import Part, Plan, plan
from ray_jobs.train.data.prepared import Prepared
from ray_jobs.train.data.stage_task import StageTask
from ray_jobs.train.data.staging import StagedPart, Stager
from ray_jobs.train.data.writing import write_rejected, write_splits
from ray_jobs.train.making import DataSummary, MakingJob, make_once

Batch = dict[str, Any]
PART: TypeAdapter[Part] = TypeAdapter(Part)


def run(config: PrepareConfig, progress: Progress | None = None, counted_by: str | None = None) -> DataSummary:
    """Prepare the inputs of `config`, or find that this was done before.

    Where `config` names no tokenizer, the card counts the tokens of the model `counted_by`, if its tokenizer loads
    here. What is prepared does not depend on it: with another one, or without, nothing is prepared again.

    Raises UsageError for an impossible request or a split without rows, NotFoundError for a missing file or tokenizer,
    CorruptError for a damaged file, RejectedError for too many wrong rows or rows of one label, StorageError when the
    store refuses; in every case nothing is published.
    """
    storage = open_storage(config.store)
    # Workers may stand in another folder, and so may who mines what is prepared.
    config = config.model_copy(
        update={"store": storage.uri, "tokenizer": config.tokenizer and anchored(config.tokenizer)}
    )
    revision = None if config.tokenizer is None else resolve(config.tokenizer, storage).revision
    planned = plan(config, revision)

    def start(cluster: ClusterSize) -> _Job:
        tokens = config.tokenizer or tokens_of(counted_by, storage)
        counted = Counted(tokens, None if tokens is None else resolve(tokens, storage).revision)
        return _Job(storage, config, planned, counted, cluster, progress or SilentProgress())

    return make_once(storage, config.name, planned.digest, start)


def tokens_of(model: str | None, storage: Storage) -> str | None:
    """The model, as workers find it, if it has a tokenizer that loads here."""
    if model is None:
        return None
    model = anchored(model)
    try:
        TokenCounter(model, storage)
    except (TandemError, ImportError):
        return None
    return model


class Stage:
    """Rows {part} to {receipt: StagedPart}; rules and tokenizer stay for as long as the stage lasts."""

    def __init__(self, task: StageTask) -> None:
        self._task = task

    @cached_property
    def _stagers(self) -> dict[str, Stager]:
        # Not in the constructor: of an error there, Ray brings the driver no more than its text.
        return self._task.stagers()

    def __call__(self, batch: Batch) -> Iterator[Batch]:
        """Stage the parts of a batch."""
        for part in map(PART.validate_json, batch["part"]):
            yield {"receipt": [self._stagers[part.set].stage(part).model_dump_json()]}


class _Job(MakingJob):
    """One preparation under way."""

    verb = "prepared"

    def __init__(
        self,
        storage: Storage,
        config: PrepareConfig,
        planned: Plan,
        counted: Counted,
        cluster: ClusterSize,
        progress: Progress,
    ) -> None:
        super().__init__(storage, cluster)
        self.config = config
        self.plan = planned
        self.counted = counted
        self.progress = progress
        self.banding = Banding.of(config.near_threshold)

    def run(self) -> Prepared:
        """All steps."""
        parts = self._stage()
        reporting.check_rejected(self.config, parts)
        with self.progress.stage("decide", 1) as stage:
            found = self._decide(parts)
            reporting.check_splits(found)
            stage.advance(1)
        with self.progress.stage("write", 1) as stage, self.storage.scratch() as folder:
            published = self._write(found, folder)
            stage.advance(1)
        return published

    def _stage(self) -> list[StagedPart]:
        """Every part, in order."""
        task = StageTask.of(self.config, self.plan, self.banding, self.folder, self.counted.tokenizer)
        items: list[dict[str, object]] = [{"part": PART.dump_json(part).decode()} for part in self.plan.parts]
        sizes = [part.piece.size for part in self.plan.parts]
        actors = (1, max(1, min(len(items), self.cluster.cpus)))
        staged = []
        with self.progress.stage("stage", sum(sizes)) as stage:
            for row in stream(items, Stage, arguments=(task,), actors=actors):
                receipt = StagedPart.model_validate_json(row["receipt"])
                stage.advance(sizes[receipt.number], rows=receipt.read)
                staged.append(receipt)
        return sorted(staged, key=lambda receipt: receipt.number)

    def _decide(self, parts: list[StagedPart]) -> Findings:
        keys = self._keys(parts)
        own = self._keys([part for part in parts if not part.set])
        kind = KINDS[self.plan.data.kind]
        rows = sum(part.rows for part in parts if not part.set)
        evaluation = [
            (sum(part.rows for part in parts if part.set == found.name), EVALUATION_KINDS[found.kind])
            for found in self.plan.evaluation
        ]
        decisions = decide(keys, rows, evaluation, kind, self.config, self.banding)
        return Findings(self.config, self.plan, parts, keys, own, self.banding, decisions, self.counted)

    def _keys(self, parts: list[StagedPart]) -> Keys:
        return Keys([(self.storage.local(part.keys_key), part.rows) for part in parts if part.rows])

    def _write(self, found: Findings, folder: Path) -> Prepared:
        decisions = found.decisions
        schema = schema_of(KINDS[self.plan.data.kind])
        splits = write_splits(self.storage, found.data, schema, decisions.places, decisions.kept, folder)
        labels = {name: reporting.label_counts(path) for name, path in splits.items()}
        reporting.check_labels(self.config, labels)
        card = reporting.make_card(found, splits, labels)
        files = {path.name: path for path in splits.values()}
        files[prepared.REJECTED] = folder / prepared.REJECTED
        write_rejected(self.storage, found.data, files[prepared.REJECTED])
        return self.publish(card, files, folder)
