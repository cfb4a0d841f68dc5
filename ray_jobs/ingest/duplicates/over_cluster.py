"""Find, over the cluster, which of the documents that would be embedded are like others.

Orphans of the snapshot before are decided anew; then all candidates are sketched, matched by the keys of their sketches
and settled. Guaranteed: whatever the workers do, equal inputs settle equally. Not guaranteed: more than the modules of
this package say of each step.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from ray_jobs.corpus.metadata import Schema
from ray_jobs.index.manifest import Manifest, SketchRecord
from ray_jobs.ingest.context import Run
from ray_jobs.ingest.dispatch import NOTHING_ALIKE, Items, counted, in_group, is_left, items_of, watched
from ray_jobs.ingest.duplicates import tasks
from ray_jobs.ingest.ledger import DUPLICATE
from ray_jobs.ingest.receipts import (
    Alike,
    DecidedPartition,
    MatchedPartition,
    OrphanedPartition,
    SketchedGroup,
    StagedGroup,
)
from ray_jobs.ingest.stage_record import Content, Piece
from ray_jobs.ingest.work import key_of
from ray_jobs.runtime import stream


def revive(run: Run, before: Manifest, decided: Sequence[DecidedPartition], first: int) -> list[StagedGroup]:
    """The duplicates whose other document has died, as groups numbered from `first`; their text is not copied."""
    concerned = [part for part in decided if part.kept.get(DUPLICATE)]
    dead = [part.dead_key for part in decided if part.dead]
    if not concerned or not dead:
        return []
    items: Items = [{"number": part.partition, "kept": part.kept_key} for part in concerned]
    rows = watched(run, "orphans", stream(items, tasks.orphans, arguments=(run.place, dead)), len(items))
    found = [counted(run, "orphans", row, OrphanedPartition) for row in rows]
    objects: Counter[str] = Counter()
    for part in found:
        objects.update(part.objects)
    records = [record for record in before.documents if record.key in objects]
    items = [{"number": first + number, "documents": record.model_dump_json()} for number, record in enumerate(records)]
    keys = sorted(part.key for part in found if part.objects)
    arguments = (run.place, run.partitions, run.reading, keys)
    rows = watched(run, "revive", stream(items, tasks.revive, arguments=arguments), len(items))
    revived = [in_group(run, "groups revived", row, StagedGroup) for row in rows]
    return sorted(revived, key=lambda group: group.group)


def find_alike(run: Run, staged: Sequence[StagedGroup], decided: Sequence[DecidedPartition], schema: Schema) -> Alike:
    """Which of the documents that would be embedded others stand for."""
    groups = [group for group in staged if is_left(group, decided)]
    if not run.config.deduplicate.on or not groups:
        return NOTHING_ALIKE
    sketched = _sketch(run, groups, decided, schema)
    matched = _match(run, sketched)
    alike = Alike(sketched=tuple(sketched))
    if not any(part.edges for part in matched):
        return alike
    keys = [part.key for part in matched if part.edges]
    living = _living(run, decided, [part.key for part in matched if part.old])
    arguments = (run.place, keys, living)
    items: Items = [{"number": run.partitions}]
    rows = watched(run, "settle", stream(items, tasks.settle_all, arguments=arguments), len(items))
    (settled,) = [counted(run, "settled", row, Alike) for row in rows]
    return alike.model_copy(update={"settled": settled.settled})


def _sketch(
    run: Run, groups: Sequence[StagedGroup], decided: Sequence[DecidedPartition], schema: Schema
) -> list[SketchedGroup]:
    how = run.config.deduplicate
    chosen = (how.model_dump_json(), json.dumps(sorted(schema.items())), run.partitions)
    items = items_of(groups, chosen, decided)
    sizes = {group.group: group.text_bytes for group in groups}
    arguments = (run.place, run.partitions, schema, how)
    needs = run.reading_needs()
    sketched = []
    total = sum(sizes.values())
    with run.stage("compare", len(items), needs) as watch, run.progress.stage("compare", total) as shown:
        for row in stream(items, tasks.sketch, arguments=arguments, **needs.options):
            receipt = in_group(run, "groups compared", row, SketchedGroup)
            size = sizes[receipt.group]
            watch.piece(Piece.of(row), Content(receipt.documents, bytes=size))
            shown.advance(size, documents=receipt.documents)
            sketched.append(receipt)
    return sorted(sketched, key=lambda receipt: receipt.group)


def _match(run: Run, sketched: Sequence[SketchedGroup]) -> list[MatchedPartition]:
    """Pairs that are alike, a partition of keys."""
    groups = [*_before(run), *((receipt.group, receipt.record) for receipt in sketched)]
    described = tasks.GROUPS.dump_json(groups)
    total = sketched[-1].group + 1
    ranges = [total * (number + 1) // run.partitions for number in range(run.partitions)]
    key = key_of(described.decode(), run.config.deduplicate.model_dump_json(), run.partitions)
    items: Items = [{"number": number, "key": f"{key}-{number}"} for number in range(run.partitions)]
    arguments = (run.place, described, ranges, run.config.deduplicate.threshold)
    rows = watched(run, "match", stream(items, tasks.match, arguments=arguments), len(items))
    return sorted(
        (counted(run, "partitions matched", row, MatchedPartition) for row in rows), key=lambda part: part.partition
    )


def _living(run: Run, decided: Sequence[DecidedPartition], matched_keys: Sequence[str]) -> list[str]:
    """Keys of the documents of the snapshot before that have edges and are searched still."""
    if not matched_keys:
        return []
    documents = [record.documents for _, record in _before(run)]
    arguments = (run.place, matched_keys, documents)
    items: Items = [{"number": part.partition, "kept": part.kept_key} for part in decided]
    rows = watched(run, "living", stream(items, tasks.live, arguments=arguments), len(items))
    return sorted(str(row["receipt"]) for row in rows)


def _before(run: Run) -> list[tuple[int, SketchRecord]]:
    """Sketches of the snapshot that is built on, numbered below 0."""
    if run.before is None or run.rebuilds:
        return []
    records = run.before.sketches
    return [(number - len(records), record) for number, record in enumerate(records)]
