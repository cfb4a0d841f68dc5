"""Garbage collection: manifests beyond those to be kept, and the objects of an index that no manifest names.

Guaranteed: an object that a manifest which stays names is never removed, nor anything younger than the grace period,
nor what an unfinished run may go on with in that time; while it works, no run writes to the index. Manifests go before
their objects: cut short, it leaves no snapshot that lacks one. Not guaranteed: that a reader which has a removed
snapshot open longer than the grace period goes on; files of this machine that are mapped stay readable.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ray_jobs.index import layout, manifest
from ray_jobs.ingest.lease import held
from ray_jobs.storage import ObjectInfo, Storage, new_id


@dataclass(frozen=True)
class Collected:
    """What was removed, or would be."""

    index: str
    snapshots: tuple[int, ...]
    objects: int
    bytes: int


def collect(storage: Storage, index: str, keep: int | None, grace_s: float, dry_run: bool = False) -> Collected:
    """Remove what nothing needs, but for the `keep` newest snapshots (None: all) and what is younger than `grace_s`.

    Raises NotFoundError for an index that does not exist, ConflictError while another run writes to it.
    """
    manifest.read_live(storage, index)
    with held(storage, index, new_id()):
        before = max(sign.modified for sign in storage.list(layout.leases(index))) - grace_s
        snapshots = _outdated(storage, index, keep, before)
        if not dry_run:
            for number in snapshots:
                storage.delete(layout.manifest(index, number))
        objects = size = 0
        for item in _orphans(storage, index, set(snapshots), before):
            objects, size = objects + 1, size + item.size
            if not dry_run:
                storage.delete(item.key)
    return Collected(index, tuple(snapshots), objects, size)


def _outdated(storage: Storage, index: str, keep: int | None, before: float) -> list[int]:
    """Snapshots beyond those to be kept that are old enough."""
    if keep is None:
        return []
    numbers = set(manifest.numbers(storage, index)[:-keep])
    found = {layout.manifest_number(item.key): item for item in storage.list(layout.index_folder(index))}
    return sorted(number for number in numbers if found[number].modified < before)


def _orphans(storage: Storage, index: str, without: set[int], before: float) -> Iterator[ObjectInfo]:
    """Objects that no other snapshot names, old enough; of finished pieces the receipts first."""
    youngest: dict[int, float] = {}
    for item in storage.list(layout.works(index)):
        parent = layout.work_parent(item.key)
        youngest[parent] = max(youngest.get(parent, 0.0), item.modified)
    for parent in sorted(parent for parent, modified in youngest.items() if modified < before):
        yield from list(storage.list(layout.receipts(index, parent)))
        yield from list(storage.list(layout.work(index, parent)))
    if any(modified >= before for modified in youngest.values()):
        # An unfinished run may name what else there is.
        return
    named = {
        file.key
        for number in manifest.numbers(storage, index)
        if number not in without
        for file in manifest.read(storage, index, number).files()
    }
    apart = (f"{layout.works(index)}/", f"{layout.leases(index)}/")
    for item in list(storage.list(layout.index_folder(index))):
        is_manifest = layout.manifest_number(item.key) is not None
        if not is_manifest and not item.key.startswith(apart) and item.key not in named and item.modified < before:
            yield item
