"""`tandem index list|info|verify|dead-letters|report|compact|rollback|gc`: look after snapshots."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import CliPositionalArg

from cluster.settings import Command, show
from ray_jobs.errors import CorruptError
from ray_jobs.index import manifest
from ray_jobs.index.manifest import Manifest
from ray_jobs.ingest.compact_settings import CompactSettings
from ray_jobs.storage import DEFAULT_STORE, Storage, open_storage


class IndexCommand(Command):
    """Look after the indices of a store: list, show, verify, say what failed and how, compact, roll back, collect."""

    action: CliPositionalArg[
        Literal["list", "info", "verify", "dead-letters", "report", "compact", "rollback", "gc"]
    ] = Field(description="what to do")
    index: CliPositionalArg[str | None] = Field(None, description="name of the index, for all but list")
    store: str = Field(DEFAULT_STORE, description="path or URI of the store")
    snapshot: int | None = Field(
        None, ge=1, description="number of the snapshot; None: the live one, or of the last run"
    )
    keep: int | None = Field(None, ge=1, description="newest snapshots that gc keeps; None: all")
    grace_hours: float = Field(24, ge=0, description="gc removes nothing that is younger")
    dry_run: bool = Field(False, description="gc says what it would remove, and removes nothing")
    compaction: CompactSettings = CompactSettings()

    @model_validator(mode="after")
    def _names_what_it_needs(self) -> Self:
        if self.action == "list" and (self.index is not None or self.snapshot is not None):
            raise ValueError("list shows every index of the store; for one of them: tandem index info NAME")
        if self.action != "list" and self.index is None:
            raise ValueError(f"{self.action} needs the name of an index; 'tandem index list' shows them")
        if self.action == "rollback" and self.snapshot is None:
            raise ValueError("rollback needs --snapshot NUMBER; 'tandem index info NAME' shows which there are")
        if self.action != "gc" and (self.keep is not None or self.dry_run):
            raise ValueError(f"keep and dry_run are for gc, not for {self.action}")
        return self


def run(command: IndexCommand) -> None:
    """Do what was asked for."""
    storage = open_storage(command.store)
    if command.action == "list":
        _list(storage, command.json_output)
        return
    assert command.index is not None, "the model requires it"
    if command.action == "gc":
        _collect(storage, command.index, command)
        return
    if command.action == "report":
        _report(storage, command.index, command)
        return
    if command.action == "compact":
        _compact(storage, command.index, command)
        return
    if command.action == "rollback":
        _rollback(storage, command.index, command.snapshot or 0, command.json_output)
        return
    if command.snapshot is None:
        found = manifest.read_live(storage, command.index)
    else:
        found = manifest.read(storage, command.index, command.snapshot)
    if command.action == "info":
        _info(storage, found, command.json_output)
    elif command.action == "dead-letters":
        _dead_letters(storage, found, command.json_output)
    else:
        _verify(storage, found, command.json_output)


def _list(storage: Storage, as_json: bool) -> None:
    found = [manifest.read_live(storage, name) for name in manifest.names(storage)]
    if as_json:
        show(json.dumps([_headline(item) for item in found], indent=1))
        return
    for item in found:
        counts = item.counts
        show(
            f"{item.index:<24} snapshot {item.number:<4} {counts.indexed:>10,} documents {counts.chunks:>11,} chunks  "
            f"{len(item.shards)} x {item.template.factory}  {item.made_by.created}"
        )
    if not found:
        show(f"no index in {storage.uri}; create one with 'tandem ingest SOURCE --index NAME'")


def _headline(item: Manifest) -> dict[str, object]:
    return {
        "index": item.index,
        "snapshot": item.number,
        "documents": item.counts.indexed,
        "chunks": item.counts.chunks,
        "shards": len(item.shards),
        "index_type": item.template.factory,
        "created": item.made_by.created,
    }


def _info(storage: Storage, item: Manifest, as_json: bool) -> None:
    history = manifest.numbers(storage, item.index)
    if as_json:
        show(json.dumps({**item.model_dump(mode="json"), "history": history}, indent=1))
        return
    counts, embedder = item.counts, item.embedder
    recall = (
        "exact"
        if item.recall is None
        else f"recall {item.recall.recall:.3f}, nprobe {item.recall.nprobe}, "
        f"{item.recall.oversampling} candidates a hit"
    )
    columns = ", ".join(f"{name} {kind}" for name, kind in item.metadata.items()) or "none"
    size = sum(file.size for file in item.files())
    for line in (
        f"index      {item.index}, snapshot {item.number} of {', '.join(map(str, history))}",
        f"documents  {counts.indexed:,} indexed, {sum(counts.filtered.values()):,} filtered, {counts.duplicates:,} "
        f"duplicates, {counts.empty:,} empty, {counts.failed:,} failed",
        f"chunks     {counts.chunks:,} in {len(item.shards)} shards of {item.template.factory} ({recall}), "
        f"{item.dead_rows:,} dead rows beside them",
        f"embedder   {embedder.model} ({embedder.engine} {embedder.precision}, {embedder.dimension} dimensions)",
        f"metadata   {columns}",
        f"size       {size:,} bytes in {len(item.files())} objects",
        f"made       {item.made_by.created} by tandem {item.made_by.tandem} in {item.made_by.seconds:.1f} s",
    ):
        show(line)


def _verify(storage: Storage, item: Manifest, as_json: bool) -> None:
    from ray_jobs.index.verify import verify

    result = verify(storage, item)
    if as_json:
        show(json.dumps(vars(result), indent=1))
    elif not result.problems:
        show(
            f"{item.index} snapshot {item.number}: {result.files} files, {result.bytes:,} bytes, "
            f"{result.rows:,} rows: intact"
        )
    if result.problems:
        more = f" (and {len(result.problems) - 1} more)" if len(result.problems) > 1 else ""
        raise CorruptError(
            f"index={item.index}: snapshot {item.number} is damaged: {result.problems[0]}{more}; restore the "
            f"files from a backup or ingest again"
        )


def _dead_letters(storage: Storage, item: Manifest, as_json: bool) -> None:
    from ray_jobs.corpus.reasons import REASONS
    from ray_jobs.ingest.dead_letters import count_reasons, read_letters

    counts = count_reasons(storage, item.dead_letters)
    letters = read_letters(storage, item.dead_letters)
    if as_json:
        found = [asdict(letter) for letter in letters]
        about = {"index": item.index, "snapshot": item.number, "reasons": dict(sorted(counts.items()))}
        show(json.dumps({**about, "dead_letters": found}, indent=1))
        return
    show(f"{item.index} snapshot {item.number}: {counts.total():,} dead letters")
    for letter in letters:
        show(f"{letter.reason:<14} {letter.source} ({letter.locator}): {' '.join(letter.message.split())}")
    explained = {str(reason): text for reason, text in REASONS.items()}
    for reason, number in sorted(counts.items()):
        show(f"{number:,} {reason}: {explained.get(reason, 'of another version of Tandem')}")


def _rollback(storage: Storage, index: str, number: int, as_json: bool) -> None:
    from ray_jobs.ingest.rollback import rollback

    published = rollback(storage, index, number)
    if as_json:
        show(json.dumps({**_headline(published), "from": number}, indent=1))
        return
    show(f"published snapshot {published.number} of {index}: what snapshot {number} holds")


def _collect(storage: Storage, index: str, command: IndexCommand) -> None:
    from ray_jobs.ingest.collect import collect

    found = collect(storage, index, command.keep, command.grace_hours * 3600, command.dry_run)
    if command.json_output:
        show(json.dumps(vars(found), indent=1))
        return
    verb = "would remove" if command.dry_run else "removed"
    show(f"{verb} {len(found.snapshots)} snapshots and {found.objects:,} objects ({found.bytes:,} bytes) of {index}")


def _report(storage: Storage, index: str, command: IndexCommand) -> None:
    from ray_jobs.ingest.report import last

    found = last(storage, index, command.snapshot)
    if command.json_output:
        show(json.dumps(vars(found), indent=1))
        return
    show(found.report)


def _compact(storage: Storage, index: str, command: IndexCommand) -> None:
    from ray_jobs import progress
    from ray_jobs.ingest import compact_job

    before = manifest.read_live(storage, index)
    published = compact_job.run(storage, index, command.compaction, progress.for_terminal())
    if command.json_output:
        show(json.dumps({**_headline(published), "dead_rows": published.dead_rows}, indent=1))
    elif published.number == before.number:
        show(f"nothing to do: the {len(before.shards)} shards of {index} are full and hold few dead rows")
    else:
        show(
            f"published snapshot {published.number} of {index}: {len(published.shards)} shards instead of "
            f"{len(before.shards)}, {published.dead_rows:,} dead rows instead of {before.dead_rows:,}"
        )
