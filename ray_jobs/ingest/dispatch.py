"""Each stage of an ingest run over the cluster: items in, receipts back as they come.

Guaranteed: receipts are sorted by group or shard, so that what follows does not depend on which finished first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, TypeVar

from pydantic import BaseModel

from ray_jobs.corpus.metadata import Schema
from ray_jobs.index.manifest import FileRecord, Manifest, ShardRecord, TemplateRecord
from ray_jobs.ingest import workers
from ray_jobs.ingest.build import ShardReceipt
from ray_jobs.ingest.bury import BuriedShard
from ray_jobs.ingest.context import Run
from ray_jobs.ingest.groups import SourceGroup, store_groups
from ray_jobs.ingest.ledger import Places
from ray_jobs.ingest.plan import plan_shards
from ray_jobs.ingest.receipts import Alike, Cut, DecidedPartition, EmbeddedGroup, SketchedGroup, StagedGroup
from ray_jobs.ingest.stage_record import Content, Piece
from ray_jobs.ingest.work import key_of
from ray_jobs.models.embedder import EmbedderConfig, EmbedderIdentity
from ray_jobs.runtime import stream

LOOK_AHEAD = 8  # groups an embedding actor takes at a time, so that one is prepared while another is embedded
Items = list[dict[str, object]]
NOTHING_ALIKE = Alike()
Receipt = TypeVar("Receipt", bound=BaseModel)
Group = TypeVar("Group", StagedGroup, SketchedGroup, EmbeddedGroup)


def stage(run: Run) -> list[StagedGroup]:
    """Read the sources that are new or have changed, or of which something failed and is tried again."""
    if run.config.retry_dead_letters and run.work.begun():
        _forget_failures(run)
    items: Items = []
    sizes: list[int] = []
    for group, record, at in store_groups(run.storage, run.work.folder, run.plan.groups):
        plan = record.model_dump_json()
        items.append({"number": group.number, "key": _key(run, group), "plan": plan, "row": at})
        sizes.append(group.size)
    arguments = (run.place, run.partitions, run.reading)
    needs = run.reading_needs()
    staged = []
    with run.stage("read", len(items), needs) as watch, run.progress.stage("read", sum(sizes)) as shown:
        for row in stream(items, workers.stage, arguments=arguments, **needs.options):
            receipt = in_group(run, "groups read", row, StagedGroup)
            size = sizes[receipt.group]
            watch.piece(Piece.of(row), Content(receipt.produced, bytes=size, failed=receipt.reasons))
            shown.advance(size, documents=receipt.produced)
            staged.append(receipt)
    return _in_order(staged)


def read_again(run: Run, staged: Sequence[StagedGroup]) -> None:
    """Let the next run read the groups again in which something failed: sources may be mended, or be back."""
    for group in staged:
        if not group.taken_over and _failed(group):
            run.work.forget("staged", _key(run, run.plan.groups[group.group]))


def _forget_failures(run: Run) -> None:
    """Of groups that a run which did not end has read, let those be read again in which something failed."""
    for group in run.plan.groups:
        key = _key(run, group)
        found = run.work.find("staged", key)
        if found is not None and _failed(StagedGroup.model_validate_json(found)):
            run.work.forget("staged", key)


def _failed(group: StagedGroup) -> bool:
    return bool(group.failed or group.sources_failed)


def _key(run: Run, group: SourceGroup) -> str:
    return key_of(group.described, run.partitions, *run.reading.described())


def take_over(run: Run, before: Manifest, gone: FileRecord | None) -> list[StagedGroup]:
    """Take the documents of the snapshot before, but for those of the sources that are `gone`."""
    ledger = workers.FILES.dump_json(before.ledger)
    arguments = (run.place, run.partitions, run.reading, ledger, gone)
    without = gone.sha256 if gone else ""
    first = len(run.plan.groups)
    items: Items = [
        {
            "number": first + number,
            "key": key_of(record.sha256, without, run.partitions, *run.reading.described()),
            "documents": record.model_dump_json(),
        }
        for number, record in enumerate(before.documents)
    ]
    taken = []
    with run.stage("take over", len(items)) as watch, run.progress.stage("take over", len(items)) as shown:
        for row in stream(items, workers.take_over, arguments=arguments):
            receipt = in_group(run, "groups taken over", row, StagedGroup)
            watch.piece(Piece.of(row), Content(receipt.produced, bytes=receipt.text_bytes))
            shown.advance(1, documents=receipt.produced)
            taken.append(receipt)
    return _in_order(taken)


def select(run: Run, before: Manifest, where: str) -> list[str]:
    """Keys of the ids of the live documents that a filter lets through."""
    dimension = before.embedder.dimension
    arguments = (run.place, dimension, before.metadata, where)
    items: Items = [
        {"number": number, "record": record.model_dump_json()} for number, record in enumerate(before.shards)
    ]
    rows = watched(run, "select", stream(items, workers.select, arguments=arguments), len(items))
    return sorted(str(row["receipt"]) for row in rows)


def decide(
    run: Run, staged: Sequence[StagedGroup], gone: FileRecord | None = None, deleted_keys: Sequence[str] = ()
) -> list[DecidedPartition]:
    """What is embedded, what stays as it is and what is dead, a hash partition of document ids."""
    deciding = workers.Deciding(
        place=run.place,
        partitions=run.partitions,
        groups=[(group.group, group.taken_over, group.ids_key) for group in staged],
        ledger=run.before.ledger if run.before else (),
        rebuilds=run.rebuilds,
        gone=gone,
        deleted_keys=tuple(deleted_keys),
    )
    items: Items = [{"number": number} for number in range(run.partitions)]
    rows = watched(run, "decide", stream(items, workers.decide, arguments=(deciding,)), len(items))
    decided = [counted(run, "decided", row, DecidedPartition) for row in rows]
    return sorted(decided, key=lambda receipt: receipt.partition)


def embed(
    run: Run,
    staged: Sequence[StagedGroup],
    decided: Sequence[DecidedPartition],
    alike: Alike,
    embedder: EmbedderConfig,
    identity: EmbedderIdentity,
    schema: Schema,
) -> list[EmbeddedGroup]:
    """Chunk and embed every group of which something is left."""
    chosen = (identity.model_dump_json(), run.config.chunking.model_dump_json(), json.dumps(sorted(schema.items())))
    staged = [group for group in staged if is_left(group, decided)]
    items = items_of(staged, (*chosen, run.partitions), decided, alike)
    sizes = {group.group: group.text_bytes for group in staged}
    arguments = (run.place, run.partitions, embedder, run.config.chunking, schema)
    needs = run.embedding_needs(embedder.device)
    wished = run.config.resources.embed_actors
    places = wished or max(1, run.cluster.room(needs.cpus, needs.gpus, needs.resources))
    embedded = []
    under_watch = run.stage("embed", len(items), needs, wished)
    with under_watch as watch, run.progress.stage("embed", sum(sizes.values())) as shown:
        for row in stream(
            items,
            workers.Embed,
            arguments=arguments,
            actors=(1, wished),
            batch_size=max(1, min(LOOK_AHEAD, len(items) // places)),
            **needs.options,
        ):
            receipt = in_group(run, "groups embedded", row, EmbeddedGroup)
            size = sizes[receipt.group]
            watch.piece(Piece.of(row), _embedded(receipt, size))
            shown.advance(size, documents=receipt.indexed, chunks=receipt.rows)
            embedded.append(receipt)
    return _in_order(embedded)


def _embedded(group: EmbeddedGroup, size: int) -> Content:
    return Content(group.indexed + group.empty, group.rows, size, group.forward_seconds, group.reasons)


def items_of(
    staged: Sequence[StagedGroup],
    chosen: Sequence[str | int],
    decided: Sequence[DecidedPartition],
    alike: Alike = NOTHING_ALIKE,
) -> Items:
    """Staged groups as items of a stage that leaves out what was decided; `chosen` is what else a piece depends on."""
    items: Items = []
    for group in staged:
        cuts = _cuts_of(group, decided)
        cuts += [(part.key, part.groups[group.group]) for part in alike.settled if group.group in part.groups]
        # Its place among the groups changes nothing of it.
        content = (group.model_dump_json(exclude={"group"}), *(cut.digest for _, cut in cuts))
        items.append(
            {
                "number": group.group,
                "key": key_of(*content, *chosen),
                "staged": group.model_dump_json(),
                "dropped": json.dumps([key for key, _ in cuts]),
            }
        )
    return items


def _cuts_of(group: StagedGroup, decided: Sequence[DecidedPartition]) -> list[tuple[str, Cut]]:
    """What the partitions leave out of a group, and the keys of the lists of it."""
    return [(part.dropped_key, part.groups[group.group]) for part in decided if group.group in part.groups]


def is_left(group: StagedGroup, decided: Sequence[DecidedPartition]) -> bool:
    """Whether the ledger or a dead letter must say what became of a document of the group."""
    cuts = [cut for _, cut in _cuts_of(group, decided)]
    return group.produced - group.failed > sum(cut.documents for cut in cuts) or any(cut.letters for cut in cuts)


def build(
    run: Run,
    embedded: Sequence[EmbeddedGroup],
    template: TemplateRecord,
    schema: Schema,
    dimension: int,
) -> list[ShardReceipt]:
    """Fill the shards; none where there are no rows."""
    if not sum(group.rows for group in embedded):
        return []
    plans = plan_shards(embedded, run.shard_count(embedded))
    chosen = (template.file.sha256, json.dumps(sorted(schema.items())), dimension, run.config.language)
    items: Items = [
        {"number": plan.number, "key": key_of(described := plan.model_dump_json(), *chosen), "plan": described}
        for plan in plans
    ]
    arguments = (run.place, template.file, schema, dimension, run.config.language)
    needs = run.building_needs()
    built = []
    with run.stage("build", len(items), needs) as watch, run.progress.stage("build", len(items)) as shown:
        for row in stream(items, workers.build, arguments=arguments, **needs.options):
            receipt = counted(run, "shards built", row, ShardReceipt)
            watch.piece(Piece.of(row), content_of(receipt.record))
            shown.advance(1, chunks=receipt.record.rows)
            built.append(receipt)
    return sorted((receipt for receipt in built if receipt.record.rows), key=lambda receipt: receipt.number)


def content_of(shard: ShardRecord) -> Content:
    """What a new shard holds."""
    return Content(shard.documents, shard.rows, sum(file.size for file in shard.files.values()))


def bury(run: Run, before: Manifest, decided: Sequence[DecidedPartition]) -> list[BuriedShard]:
    """Mark what has died in the shards of the snapshot before; those without a dead row more are left out."""
    concerned = [part for part in decided if part.shards]
    arguments = (run.place, [part.dead_key for part in concerned])
    items: Items = []
    for number, record in enumerate(before.shards):
        digests = [part.shards[record.id].digest for part in concerned if record.id in part.shards]
        if digests:
            described = record.model_dump_json()
            items.append({"number": number, "key": key_of(described, digests), "record": described})
    rows = watched(run, "bury", stream(items, workers.bury, arguments=arguments), len(items))
    buried = [counted(run, "shards marked", row, BuriedShard) for row in rows]
    return sorted(buried, key=lambda receipt: receipt.number)


def publish_ledger(
    run: Run, decided: Sequence[DecidedPartition], embedded: Sequence[EmbeddedGroup], built: Sequence[ShardReceipt]
) -> tuple[FileRecord, ...]:
    """The ledger of the new snapshot, a file a hash partition."""
    starts = accumulate((group.rows for group in embedded), initial=0)
    places = Places(
        groups=tuple((group.ledger_key, start) for group, start in zip(embedded, starts, strict=False)),
        shards=tuple((shard.record.id, shard.first_row) for shard in built),
    )
    content = [key for key, _ in places.groups] + [name for name, _ in places.shards]
    items: Items = [
        {"number": part.partition, "key": key_of(content, part.partition, part.kept_sha256), "kept": part.kept_key}
        for part in decided
    ]
    arguments = (run.place, places)
    records: dict[int, FileRecord] = {}
    for row in watched(run, "ledger", stream(items, workers.ledger, arguments=arguments), len(items)):
        records[row["number"]] = counted(run, "parts of the ledger", row, FileRecord)
    return tuple(records[number] for number in sorted(records))


def watched(run: Run, name: str, rows: Iterable[dict[str, Any]], pieces: int) -> Iterator[dict[str, Any]]:
    """The rows of a stage whose pieces are partitions, as they come: each is recorded and shown."""
    with run.stage(name, pieces) as watch, run.progress.stage(name, pieces) as shown:
        for row in rows:
            watch.piece(Piece.of(row), Content())
            shown.advance(1)
            yield row


def _in_order(groups: Sequence[Group]) -> list[Group]:
    return sorted(groups, key=lambda group: group.group)


def in_group(run: Run, stage: str, row: dict[str, Any], kind: type[Group]) -> Group:
    """The receipt of a group under its number in this run."""
    return counted(run, stage, row, kind).model_copy(update={"group": row["number"]})


def counted(run: Run, stage: str, row: dict[str, Any], kind: type[Receipt]) -> Receipt:
    """The receipt of a piece; counts those that an earlier run had finished."""
    run.found[stage] += bool(row["found"])
    return kind.model_validate_json(row["receipt"])
