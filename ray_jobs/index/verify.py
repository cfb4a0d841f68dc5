"""Whether a snapshot is what its manifest says: hashes, counts, spans, and each sampled chunk finding itself.

Guaranteed: every object that the manifest names was read whole and hashed. Not guaranteed: objects it does not name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ray_jobs.errors import NotFoundError
from ray_jobs.index.manifest import FileRecord, Manifest
from ray_jobs.index.search import Queries, SearchConfig, Statistics, make_plan
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.index.template import sample_rows
from ray_jobs.storage import Storage

SELF_QUERIES = 64


@dataclass(frozen=True)
class Verification:
    """What was checked, and every problem found."""

    index: str
    number: int
    files: int
    bytes: int
    rows: int
    problems: tuple[str, ...]


def verify(storage: Storage, manifest: Manifest, seen: Callable[[FileRecord], None] = lambda _: None) -> Verification:
    """Check every file of a snapshot, then its counts, then that sampled rows find themselves.

    `seen` is called after each file. Problems are collected, not raised, so that one report names them all.
    """
    problems = []
    files = manifest.files()
    for record in files:
        problem = check_file(storage, record)
        if problem is not None:
            problems.append(problem)
        seen(record)
    problems.extend(manifest.counts.check())
    rows = manifest.live_rows
    if rows != manifest.counts.chunks:
        problems.append(f"shards hold {rows} live rows, the manifest counts {manifest.counts.chunks} chunks")
    if not problems:
        problems.extend(_self_search(Snapshot.open(storage, manifest.index, manifest.number)))
    return Verification(manifest.index, manifest.number, len(files), sum(f.size for f in files), rows, tuple(problems))


def check_new_files(storage: Storage, manifest: Manifest, before: Manifest | None) -> list[str]:
    """What is wrong with the objects that the snapshot `before` does not name."""
    known = {file.key for file in before.files()} if before else set()
    written = [file for file in manifest.files() if file.key not in known]
    return [problem for file in written if (problem := check_file(storage, file))]


def check_file(storage: Storage, record: FileRecord) -> str | None:
    """What is wrong with one object, or None."""
    try:
        size, digest = storage.fingerprint(record.key)
    except NotFoundError as error:
        return str(error)
    if size != record.size:
        return f"{record.key}: {size} bytes, expected {record.size}"
    if digest != record.sha256:
        return f"{record.key}: content differs from its sha256"
    return None


def _self_search(snapshot: Snapshot) -> list[str]:
    """A stored vector must be among the best matches of itself, by exact scan."""
    if not snapshot.manifest.counts.chunks:
        return []
    own, vectors = sample_rows(snapshot, SELF_QUERIES, seed=0)
    config = SearchConfig(mode="dense", by="chunk", k=1)
    plan = make_plan(snapshot.manifest, config, None, 0)
    queries = Queries(vectors, [[] for _ in own])
    listed = snapshot.ranking(queries, plan, Statistics()).candidates
    best = dict(zip(listed.query.tolist(), listed.score.tolist(), strict=True))
    lost = []
    for position, (shard, row) in enumerate(own):
        score = float(vectors[position].astype("f8") @ vectors[position].astype("f8"))
        if best.get(position, float("-inf")) < score - 1e-2:
            lost.append(
                f"shard {shard} row {row} is not found by its own vector (best {best.get(position)}, own {score})"
            )
    return lost
