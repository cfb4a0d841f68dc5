"""The compaction job: plan, rewrite, move the ledger, verify, commit.

Guaranteed and not: as `compact` says.
"""

from __future__ import annotations

from ray_jobs.errors import RejectedError
from ray_jobs.index import manifest
from ray_jobs.index.manifest import Manifest
from ray_jobs.index.verify import check_new_files
from ray_jobs.ingest import job, workers
from ray_jobs.ingest.compact import MovedPartition, Rewritten, compacted, digest_of, moves_of, plan
from ray_jobs.ingest.compact_settings import CompactSettings
from ray_jobs.ingest.context import Run
from ray_jobs.ingest.dispatch import content_of, watched
from ray_jobs.ingest.stage_record import Piece
from ray_jobs.ingest.work import key_of
from ray_jobs.progress import Progress
from ray_jobs.runtime import raise_if_interrupted, stream
from ray_jobs.storage import Storage


def run(storage: Storage, index: str, settings: CompactSettings, progress: Progress | None = None) -> Manifest:
    """Publish a snapshot of fewer, fuller shards; returns its manifest, or the live one where nothing is to be done.

    Raises NotFoundError for an index that does not exist, ConflictError when another run writes to it or published
    first, RejectedError for shards that do not verify; in every case the old snapshot stays live.
    """
    before = manifest.read_live(storage, index)
    plans = plan(before.shards, settings.max_dead, settings.shard_bytes)
    if not plans:
        return before
    with job.over(storage, before, "compact", progress) as under_way:
        return _publish(under_way, before, plans)


def _publish(run: Run, before: Manifest, plans: list[tuple[int, ...]]) -> Manifest:
    rewritten = _rewrite(run, before, plans)
    moved = _move(run, before, plans, rewritten)
    candidate = compacted(before, plans, rewritten, moved, run.job_id)
    problems = check_new_files(run.storage, candidate, before)
    if candidate.live_rows != before.live_rows:
        problems.append(f"{candidate.live_rows} live rows, expected {before.live_rows}")
    if problems:
        raise RejectedError(
            f"index={before.index}: the new snapshot does not verify ({problems[0]}); nothing was published, run the "
            "command again"
        )
    raise_if_interrupted()
    manifest.commit(run.storage, candidate)
    job.clean_up(run, (), candidate)
    return candidate


def _rewrite(run: Run, before: Manifest, plans: list[tuple[int, ...]]) -> list[Rewritten]:
    template, schema = before.template.file, before.metadata
    items: list[dict[str, object]] = []
    for number, group in enumerate(plans):
        records = tuple(before.shards[n] for n in group)
        key = key_of(*digest_of(records, template, schema))
        items.append({"number": number, "key": key, "records": workers.SHARDS.dump_json(records).decode()})
    arguments = (run.place, template, schema)
    needs = run.building_needs()
    made = []
    with run.stage("rewrite", len(items), needs) as watch, run.progress.stage("rewrite", len(items)) as shown:
        for row in stream(items, workers.rewrite, arguments=arguments, **needs.options):
            receipt = Rewritten.model_validate_json(row["receipt"]).model_copy(update={"number": row["number"]})
            watch.piece(Piece.of(row), content_of(receipt.record))
            shown.advance(1, chunks=receipt.record.rows)
            made.append(receipt)
    return sorted(made, key=lambda receipt: receipt.number)


def _move(run: Run, before: Manifest, plans: list[tuple[int, ...]], rewritten: list[Rewritten]) -> list[MovedPartition]:
    moves = moves_of([[before.shards[n] for n in group] for group in plans], rewritten)
    content = [part for move in moves for part in (move.source.id, move.id)]
    items: list[dict[str, object]] = [
        {"number": number, "key": key_of(content, record.sha256), "ledger": record.model_dump_json()}
        for number, record in enumerate(before.ledger)
    ]
    arguments = (run.place, moves)
    found: dict[int, MovedPartition] = {}
    for row in watched(run, "ledger", stream(items, workers.move, arguments=arguments), len(items)):
        found[row["number"]] = MovedPartition.model_validate_json(row["receipt"])
    return [found[number] for number in sorted(found)]
