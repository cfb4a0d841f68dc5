"""What an ingest run comes to: its counts, its failures, its manifest and its summary."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ray_jobs.corpus.metadata import Schema
from ray_jobs.errors import RejectedError
from ray_jobs.index.manifest import Counts, FileRecord, LexicalRecord, MadeBy, Manifest, TemplateRecord
from ray_jobs.ingest import dead_letters
from ray_jobs.ingest.build import ShardReceipt
from ray_jobs.ingest.bury import BuriedShard
from ray_jobs.ingest.context import Run
from ray_jobs.ingest.failures import EXAMPLES, failures_in
from ray_jobs.ingest.ledger import DELETED, DUPLICATE, EMPTY, FILTERED, INDEXED
from ray_jobs.ingest.plan import SourcePlan
from ray_jobs.ingest.receipts import Alike, DecidedPartition, EmbeddedGroup, StagedGroup
from ray_jobs.ingest.seen import publish
from ray_jobs.ingest.summary import IngestSummary
from ray_jobs.ingest.usage import Used
from ray_jobs.models.embedder import EmbedderIdentity
from ray_jobs.storage import Storage


def count(
    run: Run,
    staged: Sequence[StagedGroup],
    decided: Sequence[DecidedPartition] = (),
    embedded: Sequence[EmbeddedGroup] = (),
) -> Counts:
    """The two sums of invariant 4, from the receipts."""
    reasons, stayed, filtered = Counter[str](), Counter[str](), Counter[str]()
    for part in decided:
        reasons.update(part.reasons)
        stayed.update(part.kept)
    del stayed[DELETED]
    taken_over = sum(group.produced for group in staged if group.taken_over) - reasons["replaced"]
    if not run.rebuilds:
        stayed[DUPLICATE] -= taken_over  # duplicates of before that are decided anew
    read = sum(group.produced for group in staged if not group.taken_over) - reasons["unchanged"]
    for fate, number in stayed.items():
        if fate.startswith(f"{FILTERED} "):
            filtered[fate.removeprefix(f"{FILTERED} ")] += number
    for group in embedded:
        filtered.update(group.filtered)
    kept = taken_over + stayed.total()
    return Counts(
        sources=run.plan.files,
        read=sum(group.sources_read for group in staged),
        unchanged=run.plan.changes.unchanged,
        sources_failed=sum(group.sources_failed for group in staged),
        documents=read + kept,
        kept=kept,
        indexed=stayed[INDEXED] + sum(group.indexed for group in embedded),
        filtered=dict(sorted(filtered.items())),
        duplicates=reasons["duplicate"] + stayed[DUPLICATE] + sum(group.duplicates for group in embedded),
        empty=stayed[EMPTY] + sum(group.empty for group in embedded),
        failed=sum(group.failed for group in staged)
        + reasons["duplicate-id"]
        + sum(group.misfits for group in embedded),
        chunks=sum(group.rows for group in embedded),
    )


def check_failures(
    run: Run,
    staged: Sequence[StagedGroup],
    decided: Sequence[DecidedPartition] = (),
    embedded: Sequence[EmbeddedGroup] = (),
) -> None:
    """Raise RejectedError when a larger share of documents failed than the configuration allows."""
    counts = run.findings.counts = count(run, staged, decided, embedded)
    failed = counts.failed + counts.sources_failed
    total = sum(group.produced for group in staged if not group.taken_over) + counts.sources_failed
    if failed <= run.config.max_failed * total:
        return
    found = run.findings.failures = failures_in(run.storage, letters_of(staged, embedded))
    listed = ", ".join(f"{number} {reason}" for reason, number in sorted(found.reasons.items()))
    raise RejectedError(
        f"max_failed={run.config.max_failed}: {failed} of {total} documents failed ({listed}), first: "
        f"{found.examples[0]}; nothing was published, mend the sources or raise --max-failed"
    )


@dataclass(frozen=True)
class Made:
    """What the stages of a run have made."""

    staged: Sequence[StagedGroup]
    decided: Sequence[DecidedPartition]
    alike: Alike
    embedded: Sequence[EmbeddedGroup]
    buried: Sequence[BuriedShard]
    built: Sequence[ShardReceipt]
    template: TemplateRecord
    schema: Schema
    identity: EmbedderIdentity
    ledger: tuple[FileRecord, ...]


def make_manifest(run: Run, made: Made) -> Manifest:
    """The manifest of the snapshot that these receipts make, recall not measured yet."""
    before = None if run.rebuilds else run.before
    buried = {shard.number: shard.record for shard in made.buried}
    stayed = [] if before is None else [buried.get(n, record) for n, record in enumerate(before.shards)]
    shards = (*stayed, *(shard.record for shard in made.built))
    length = 0 if before is None else before.lexical.total_length
    length += sum(shard.total_length for shard in made.built) - sum(shard.total_length for shard in made.buried)
    chunks = sum(record.rows - record.dead_rows for record in shards)
    return Manifest(
        index=run.config.index,
        number=run.parent + 1,
        parent=run.before.number if run.before else None,
        embedder=made.identity,
        template=made.template,
        shards=shards,
        metadata=made.schema,
        chunking=run.config.chunking.model_dump(),
        cleaning={"unicode": "NFC"},
        lexical=LexicalRecord(language=run.config.language, chunks=chunks, total_length=length),
        documents=_documents(before, made),
        ledger=made.ledger,
        seen=publish(run.storage, run.config.index, run.plan.changes.seen_after(run.config.prune)),
        sketches=(*(before.sketches if before else ()), *(group.record for group in made.alike.sketched)),
        dead_letters=(*_still_dead(run), *letters_of(made.staged, made.embedded)),
        counts=count(run, made.staged, made.decided, made.embedded).model_copy(update={"chunks": chunks}),
        recall=None,
        made_by=MadeBy.now(run.job_id, run.config.content_hash(), round(time.monotonic() - run.started, 3)),
        config=run.config.model_dump(mode="json"),
    )


def _documents(before: Manifest | None, made: Made) -> tuple[FileRecord, ...]:
    """The objects with the text of documents: those of before, and new ones."""
    records = [*(before.documents if before else ()), *(group.documents for group in made.embedded)]
    return tuple({record.key: record for record in records}.values())


def changes(
    run: Run, decided: Sequence[DecidedPartition], embedded: Sequence[EmbeddedGroup], letters: Sequence[FileRecord]
) -> bool:
    """Whether a document is new, changed or dead, a file new or gone, or something else could not be indexed."""
    if run.before is None or run.rebuilds or any(part.dead for part in decided):
        return True
    if any(group.indexed or group.empty or group.filtered or group.duplicates for group in embedded):
        return True
    files = run.plan.changes
    if files.new or (run.config.prune and files.vanished):
        return True
    return dead_letters.differ(run.storage, run.before.dead_letters, letters, files.read_among)


def _still_dead(run: Run) -> list[FileRecord]:
    """The dead letters of the snapshot before, but for those of sources that were read again or are gone."""
    if run.before is None:
        return []
    files = run.plan.changes

    def settled(sources: Collection[str]) -> set[str]:
        return files.read_among(sources) | (files.vanished_among(sources) if run.config.prune else set())

    return list(dead_letters.without_sources(run.storage, run.config.index, run.before.dead_letters, settled))


def summarise(run: Run, published: Manifest, made: Made, used: Used, report: str) -> IngestSummary:
    """The summary of a published run."""
    return IngestSummary(
        index=published.index,
        store=run.storage.uri,
        outcome="published",
        snapshot=published.number,
        job_id=run.job_id,
        counts=published.counts,
        reasons=dict(run.findings.failures.reasons),
        examples=tuple(run.findings.failures.examples),
        masked=dict(sum((Counter(group.masked) for group in made.staged), Counter())),
        set_aside=run.findings.set_aside,
        shards=len(published.shards),
        index_type=published.template.factory,
        recall=published.recall,
        embedder=published.embedder.model,
        engine=f"{published.embedder.engine} {published.embedder.precision}",
        bytes=sum(file.size for file in published.files()),
        seconds={name: round(value, 3) for name, value in run.record.seconds.items()},
        gone=sum(part.dead for part in made.decided),
        found={name: number for name, number in run.found.items() if number},
        usage=dict(used.stages),
        bottleneck=used.bottleneck,
        cost=used.cost,
        report=report,
    )


def unchanged(
    storage: Storage, before: Manifest, plan: SourcePlan, letters: Sequence[FileRecord] = ()
) -> IngestSummary:
    """The summary of a run that found its inputs in the live snapshot already; what failed failed again."""
    found = failures_in(storage, letters)
    return IngestSummary(
        index=before.index,
        store=storage.uri,
        outcome="unchanged",
        snapshot=before.number,
        job_id=before.made_by.job_id,
        counts=Counts(sources=plan.files, unchanged=plan.files),
        reasons=dict(found.reasons),
        examples=tuple(found.examples),
        shards=len(before.shards),
        index_type=before.template.factory,
        recall=before.recall,
        embedder=before.embedder.model,
        engine=f"{before.embedder.engine} {before.embedder.precision}",
        bytes=sum(file.size for file in before.files()),
        seconds={},
        gone=0,
        found={},
        usage={},
        bottleneck=None,
        cost=None,
        report=None,
    )


def examples_of(embedded: Sequence[EmbeddedGroup]) -> tuple[tuple[str, str, str], ...]:
    """Some filtered documents and duplicates, of each fate as many as a summary names."""
    seen: Counter[str] = Counter()
    found = []
    for example in (example for group in embedded for example in group.examples):
        seen[example[0]] += 1
        if seen[example[0]] <= EXAMPLES:
            found.append(example)
    return tuple(sorted(found))


def letters_of(staged: Sequence[StagedGroup], embedded: Sequence[EmbeddedGroup] = ()) -> tuple[FileRecord, ...]:
    """The dead letters of a run."""
    letters = [group.dead_letters for group in staged] + [group.dead_letters for group in embedded]
    return tuple(record for record in letters if record is not None)


def files_of(staged: Sequence[StagedGroup], alike: Alike, letters: Sequence[FileRecord]) -> tuple[FileRecord, ...]:
    """The objects of the index that a run has made before any shard."""
    texts = [group.documents for group in staged if not group.taken_over]
    sketches = [file for group in alike.sketched for file in (group.record.bands, group.record.sketches)]
    return (*texts, *sketches, *letters)
