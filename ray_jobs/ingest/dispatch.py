"""Each stage of an ingest run over the cluster: items in, receipts back as they come.

Guaranteed: receipts are sorted by group or shard, so that what follows does not depend on which finished first.
"""

from __future__ import annotations

from collections.abc import Sequence

from ray_jobs.corpus.metadata import Schema
from ray_jobs.index.manifest import FileRecord, TemplateRecord
from ray_jobs.ingest import workers
from ray_jobs.ingest.build import ShardReceipt
from ray_jobs.ingest.context import Run
from ray_jobs.ingest.plan import plan_shards
from ray_jobs.ingest.receipts import Dropped, EmbeddedGroup, StagedGroup
from ray_jobs.models.embedder import EmbedderConfig
from ray_jobs.runtime import stream
from ray_jobs.storage import new_id

LOOK_AHEAD = 8  # groups an embedding actor takes at a time, so that one is prepared while another is embedded


def stage(run: Run) -> list[StagedGroup]:
    """Read every source; take over what is live from the snapshot before."""
    items: list[dict[str, object]] = [
        {"group": number, "parts": workers.PARTS.dump_json(parts).decode()}
        for number, parts in enumerate(run.plan.groups)
    ]
    arguments = (run.config.store, run.config.index, run.job_id, run.plan.partitions)
    sizes = [sum(part.size for part in parts) for parts in run.plan.groups]
    cpus = run.task_cpus(run.config.resources.stage_cpus)
    staged = []
    with run.timed("read"), run.progress.stage("read", sum(sizes)) as stage:
        for row in stream(items, workers.stage, arguments=arguments, num_cpus=cpus):
            receipt = StagedGroup.model_validate_json(row["receipt"])
            stage.advance(sizes[receipt.group], documents=receipt.produced)
            staged.append(receipt)
        staged += _keep(run, len(items))
    return sorted(staged, key=lambda receipt: receipt.group)


def _keep(run: Run, first: int) -> list[StagedGroup]:
    if run.before is None:
        return []
    vanished = frozenset(run.plan.inputs) if run.config.prune else frozenset()
    arguments = (
        run.config.store,
        run.config.index,
        run.job_id,
        run.plan.partitions,
        workers.FILES.dump_json(run.before.ledger),
        vanished,
    )
    items: list[dict[str, object]] = [
        {"group": first + number, "documents": record.model_dump_json()}
        for number, record in enumerate(run.before.documents)
    ]
    return [StagedGroup.model_validate_json(row["receipt"]) for row in stream(items, workers.keep, arguments=arguments)]


def decide(run: Run, staged: Sequence[StagedGroup]) -> dict[int, list[Dropped]]:
    """Which documents another one of the same id displaces, by group."""
    groups = [(group.group, group.kept, group.ids_key) for group in staged]
    items: list[dict[str, object]] = [{"partition": number} for number in range(run.plan.partitions)]
    dropped: dict[int, list[Dropped]] = {}
    with run.timed("decide"):
        for row in stream(items, workers.decide, arguments=(run.config.store, groups)):
            for item in workers.DROPPED.validate_json(row["receipt"]):
                dropped.setdefault(item.group, []).append(item)
    return dropped


def embed(
    run: Run,
    staged: Sequence[StagedGroup],
    dropped: dict[int, list[Dropped]],
    embedder: EmbedderConfig,
    schema: Schema,
) -> list[EmbeddedGroup]:
    """Chunk and embed every group."""
    items: list[dict[str, object]] = [
        {
            "staged": group.model_dump_json(),
            "dropped": workers.DROPPED.dump_json(dropped.get(group.group, [])).decode(),
        }
        for group in staged
    ]
    sizes = {group.group: group.text_bytes for group in staged}
    arguments = (
        run.config.store,
        run.config.index,
        run.job_id,
        run.plan.partitions,
        embedder,
        run.config.chunking,
        schema,
    )
    actors, cpus, gpus = run.embed_resources(embedder.device)
    embedded = []
    with run.timed("embed"), run.progress.stage("embed", sum(sizes.values())) as stage:
        for row in stream(
            items,
            workers.Embed,
            arguments=arguments,
            actors=(1, actors),
            batch_size=max(1, min(LOOK_AHEAD, len(items) // actors)),
            num_cpus=cpus,
            num_gpus=gpus,
        ):
            receipt = EmbeddedGroup.model_validate_json(row["receipt"])
            stage.advance(sizes[receipt.group], documents=receipt.indexed, chunks=receipt.rows)
            embedded.append(receipt)
    return sorted(embedded, key=lambda receipt: receipt.group)


def build(
    run: Run,
    embedded: Sequence[EmbeddedGroup],
    template: TemplateRecord,
    schema: Schema,
    dimension: int,
) -> list[ShardReceipt]:
    """Fill the shards."""
    plans = plan_shards(embedded, run.shard_count(embedded))
    items: list[dict[str, object]] = [{"plan": plan.model_dump_json()} for plan in plans]
    arguments = (
        run.config.store,
        run.config.index,
        template.file,
        schema,
        dimension,
        run.config.language,
    )
    cpus = run.task_cpus(run.config.resources.build_cpus)
    built = []
    with run.timed("build"), run.progress.stage("build", len(items)) as stage:
        for row in stream(items, workers.build, arguments=arguments, num_cpus=cpus):
            receipt = ShardReceipt.model_validate_json(row["receipt"])
            stage.advance(1, chunks=receipt.record.rows)
            built.append(receipt)
    return sorted((receipt for receipt in built if receipt.record.rows), key=lambda receipt: receipt.number)


def publish_ledger(run: Run, embedded: Sequence[EmbeddedGroup]) -> tuple[FileRecord, ...]:
    """Gather the ledger's hash partitions."""
    arguments = (run.config.store, run.config.index, new_id(), [group.ledger_key for group in embedded])
    items: list[dict[str, object]] = [{"partition": number} for number in range(run.plan.partitions)]
    with run.timed("ledger"):
        records = [
            FileRecord.model_validate_json(row["receipt"]) for row in stream(items, workers.ledger, arguments=arguments)
        ]
    return tuple(sorted(records, key=lambda record: record.key))
