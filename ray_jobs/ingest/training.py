"""Train: the template of a run's shards, on a random sample of what it has embedded.

Guaranteed: a run that builds on a snapshot goes on with its template, unless all rows are made anew; the same template
is stored once, whoever trains it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ray_jobs.errors import ConflictError, CorruptError, RejectedError
from ray_jobs.index import layout
from ray_jobs.index.factory import IndexType, training_size
from ray_jobs.index.ladder import Wanted, check_budget, choose
from ray_jobs.index.manifest import FileRecord, Manifest, TemplateRecord
from ray_jobs.index.template import default_nprobe, train
from ray_jobs.ingest.build import sample_vectors
from ray_jobs.ingest.context import Run
from ray_jobs.ingest.receipts import EmbeddedGroup
from ray_jobs.storage import sha256_of


def template_of(run: Run, embedded: Sequence[EmbeddedGroup], dimension: int) -> TemplateRecord:
    """That of the snapshot that is built on, or one of the index type that fits, trained on a random sample.

    Raises RejectedError where there is nothing to train on, UsageError for a budget of memory that nothing fits.
    """
    if run.before is not None and not run.rebuilds:
        template = run.before.template
        if any(group.rows for group in embedded):
            check_budget(IndexType(template.factory, ""), _wanted(run, embedded, dimension, run.before))
        return template
    rows = sum(group.rows for group in embedded)
    if rows == 0:
        raise RejectedError(
            f"index={run.config.index}: none of the sources has any text to index; nothing was published, name sources "
            f"with text"
        )
    with run.timed("train"), run.storage.scratch() as folder:
        chosen = choose(run.config.index_type, _wanted(run, embedded, dimension))
        count = training_size(chosen, rows)
        sample = sample_vectors(run.storage, embedded, count, dimension, folder / "sample.f16", seed=0)
        path = folder / "template.faiss"
        trained_on = train(chosen, sample, dimension, path)
        digest = sha256_of(path)
        key = layout.template(run.config.index, digest)
        size = path.stat().st_size
        try:
            run.storage.upload(key, path)
        except ConflictError:
            # Its name is the hash of its bytes: an earlier run left the very same template.
            if run.storage.fingerprint(key) != (size, digest):
                raise CorruptError(
                    f"{run.storage.uri}/{key}: content differs from its sha256 {digest[:12]}…; restore it from a backup"
                ) from None
    return TemplateRecord(
        factory=chosen.factory,
        file=FileRecord(key=key, size=size, sha256=digest),
        metric="inner_product",
        nprobe=default_nprobe(chosen),
        trained_on=trained_on,
    )


def _wanted(run: Run, embedded: Sequence[EmbeddedGroup], dimension: int, beside: Manifest | None = None) -> Wanted:
    """What the index is for: the embedded groups, and the snapshot that they come beside."""
    stayed = () if beside is None else beside.shards
    return Wanted(
        vectors=sum(group.rows for group in embedded) + sum(shard.rows for shard in stayed),
        dimension=dimension,
        shards=run.shard_count(embedded) + len(stayed),
        budget=run.config.memory_budget,
        recall_target=run.config.recall_target,
    )
