"""What an ingest run comes to: its counts, its failures, its manifest and its summary."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version

import pyarrow.parquet as pq

from ray_jobs.corpus.metadata import Schema
from ray_jobs.errors import RejectedError, StorageError
from ray_jobs.index import layout
from ray_jobs.index.manifest import Counts, FileRecord, LexicalRecord, MadeBy, Manifest, TemplateRecord
from ray_jobs.ingest.build import ShardReceipt
from ray_jobs.ingest.context import Run
from ray_jobs.ingest.plan import SourcePlan
from ray_jobs.ingest.receipts import EmbeddedGroup, StagedGroup
from ray_jobs.ingest.stage import content_sum
from ray_jobs.ingest.summary import IngestSummary
from ray_jobs.models.embedder import EmbedderIdentity
from ray_jobs.storage import Storage

EXAMPLES = 5  # failed documents named in a summary


def count(run: Run, staged: Sequence[StagedGroup], embedded: Sequence[EmbeddedGroup]) -> Counts:
    """The two sums of invariant 4, from the receipts."""
    replaced = sum(group.replaced for group in embedded)
    produced = sum(group.produced for group in staged)
    return Counts(
        sources=run.plan.files,
        read=sum(group.sources_read for group in staged),
        sources_failed=sum(group.sources_failed for group in staged),
        documents=produced - replaced,
        kept=sum(group.produced for group in staged if group.kept) - replaced,
        indexed=sum(group.indexed for group in embedded),
        duplicates=sum(group.duplicates for group in embedded),
        empty=sum(group.empty for group in embedded),
        failed=sum(group.failed for group in staged) + sum(group.failed for group in embedded),
        chunks=sum(group.rows for group in embedded),
    )


def check_failures(run: Run, staged: Sequence[StagedGroup], embedded: Sequence[EmbeddedGroup]) -> None:
    """Raise RejectedError when a larger share of documents failed than the configuration allows."""
    counts = count(run, staged, embedded)
    failed = counts.failed + counts.sources_failed
    total = sum(group.produced for group in staged if not group.kept) + counts.sources_failed
    if failed <= run.config.max_failed * total:
        return
    reasons, examples = _failures(run.storage, _dead_letters(staged, embedded))
    listed = ", ".join(f"{number} {reason}" for reason, number in sorted(reasons.items()))
    raise RejectedError(
        f"max_failed={run.config.max_failed}: {failed} of {total} documents failed ({listed}), first: {examples[0]}; "
        f"nothing was published, mend the sources or raise --max-failed"
    )


def make_manifest(
    run: Run,
    staged: Sequence[StagedGroup],
    embedded: Sequence[EmbeddedGroup],
    template: TemplateRecord,
    shards: Sequence[ShardReceipt],
    schema: Schema,
    identity: EmbedderIdentity,
    ledger: tuple[FileRecord, ...],
) -> Manifest:
    """The manifest of the snapshot that these receipts make, recall not measured yet."""
    inputs = dict(run.before.made_by.inputs) if run.before else {}
    return Manifest(
        index=run.config.index,
        number=run.before.number + 1 if run.before else 1,
        parent=run.before.number if run.before else None,
        embedder=identity,
        template=template,
        shards=tuple(shard.record for shard in shards),
        metadata=schema,
        chunking=run.config.chunking.model_dump(),
        cleaning={"unicode": "NFC"},
        lexical=LexicalRecord(
            language=run.config.language,
            chunks=sum(shard.record.rows for shard in shards),
            total_length=sum(shard.total_length for shard in shards),
        ),
        documents=tuple(group.documents for group in staged if group.produced > group.failed),
        ledger=ledger,
        dead_letters=_dead_letters(staged, embedded),
        counts=count(run, staged, embedded),
        recall=None,
        made_by=MadeBy(
            job_id=run.job_id,
            tandem=version("tandem"),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            config_hash=run.config.content_hash(),
            inputs={**inputs, **run.plan.inputs},
            documents_hash=content_sum(staged),
            seconds=round(time.monotonic() - run.started, 3),
        ),
        config=run.config.model_dump(mode="json"),
    )


def summarise(
    run: Run, published: Manifest, staged: Sequence[StagedGroup], embedded: Sequence[EmbeddedGroup]
) -> IngestSummary:
    """The summary of a published run, stored beside its configuration where the store takes it."""
    reasons, examples = _failures(run.storage, _dead_letters(staged, embedded))
    summary = IngestSummary(
        index=published.index,
        store=run.storage.uri,
        outcome="published",
        snapshot=published.number,
        job_id=run.job_id,
        counts=published.counts,
        reasons=dict(reasons),
        examples=tuple(examples),
        shards=len(published.shards),
        index_type=published.template.factory,
        recall=published.recall,
        embedder=published.embedder.model,
        engine=f"{published.embedder.engine} {published.embedder.precision}",
        bytes=sum(file.size for file in published.files()),
        seconds={name: round(value, 3) for name, value in run.seconds.items()},
    )
    # The snapshot is live, and its manifest holds the counts: a disk that is full by now costs only these copies.
    with suppress(StorageError):
        folder = layout.run_folder(run.job_id)
        run.storage.create(f"{folder}/config.json", run.config.model_dump_json(indent=1).encode())
        events = "".join(json.dumps(event) + "\n" for event in run.events)
        run.storage.create(f"{folder}/events.jsonl", events.encode())
        run.storage.create(f"{folder}/metrics.json", summary.model_dump_json(indent=1).encode())
    return summary


def unchanged(storage: Storage, before: Manifest, plan: SourcePlan) -> IngestSummary:
    """The summary of a run that found its inputs in the live snapshot already."""
    return IngestSummary(
        index=before.index,
        store=storage.uri,
        outcome="unchanged",
        snapshot=before.number,
        job_id=before.made_by.job_id,
        counts=Counts(sources=plan.files, unchanged=plan.files),
        reasons={},
        examples=(),
        shards=len(before.shards),
        index_type=before.template.factory,
        recall=before.recall,
        embedder=before.embedder.model,
        engine=f"{before.embedder.engine} {before.embedder.precision}",
        bytes=sum(file.size for file in before.files()),
        seconds={},
    )


def _dead_letters(staged: Sequence[StagedGroup], embedded: Sequence[EmbeddedGroup]) -> tuple[FileRecord, ...]:
    letters = [group.dead_letters for group in staged] + [group.dead_letters for group in embedded]
    return tuple(record for record in letters if record is not None)


def _failures(storage: Storage, files: Sequence[FileRecord]) -> tuple[Counter[str], list[str]]:
    """How many failed for each reason, and some examples."""
    reasons: Counter[str] = Counter()
    examples: list[str] = []
    for file in files:
        for letter in pq.read_table(storage.local(file.key, file.sha256)).to_pylist():
            reasons[letter["reason"]] += 1
            if len(examples) < EXAMPLES:
                examples.append(f"{letter['source']} ({letter['locator']}): {letter['message']}")
    return reasons, examples
