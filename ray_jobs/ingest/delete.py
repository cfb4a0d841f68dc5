"""The deletion job: documents by their ids or by a filter, out of the next snapshot.

Guaranteed: what is deleted is found in no mode of search from the next snapshot on, and does not come back by reading
its source again, unless its content has changed; a duplicate of it takes its place; older snapshots go on holding it.
Not guaranteed: that its text is gone from the store: objects stay for as long as a snapshot names them; 'tandem index
gc' removes what none names.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ray_jobs.errors import NotFoundError
from ray_jobs.index import manifest
from ray_jobs.index.filters import check, parse
from ray_jobs.index.layout import check_name
from ray_jobs.index.manifest import Manifest
from ray_jobs.ingest import dispatch, job
from ray_jobs.ingest.context import Run
from ray_jobs.ingest.duplicates.over_cluster import revive
from ray_jobs.ingest.ledger import DELETED, known_documents
from ray_jobs.ingest.outcome import Made
from ray_jobs.ingest.plan import partition_of
from ray_jobs.ingest.select import write_ids
from ray_jobs.ingest.summary import IngestSummary
from ray_jobs.models.embedder import check_compatible
from ray_jobs.progress import Progress
from ray_jobs.storage import DEFAULT_STORE, Storage, open_storage


class DeleteConfig(BaseModel):
    """One run of the deletion job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ids: tuple[str, ...] = Field((), description="ids of documents")
    index: str = Field(description="name of the index")
    store: str = Field(DEFAULT_STORE, description="path or URI of the store")
    where: str | None = Field(None, description="filter on metadata, such as \"lang = 'en' and year < 2020\"")

    @model_validator(mode="after")
    def _says_which(self) -> DeleteConfig:
        check_name(self.index)
        if bool(self.ids) == (self.where is not None):
            raise ValueError("expected either ids of documents or where, a filter on their metadata")
        return self


def run(config: DeleteConfig, progress: Progress | None = None) -> IngestSummary:
    """Publish a snapshot without the documents that are meant.

    Raises NotFoundError for an id that the index does not have and for a filter that no document passes, UsageError for
    a filter that does not fit the metadata, and for a model that is not the one that embedded the index any more when a
    duplicate must be embedded, ConflictError when another run writes to the index or published first; in every case
    nothing is deleted.
    """
    storage = open_storage(config.store)
    before = manifest.read_live(storage, config.index)
    _check(storage, before, config)
    with job.over(storage, before, "delete", progress) as under_way:
        return _publish(under_way, before, config)


def _publish(run: Run, before: Manifest, config: DeleteConfig) -> IngestSummary:
    if config.where is None:
        keys = [write_ids(run.storage, run.work.folder, sorted(set(config.ids)))]
    else:
        keys = dispatch.select(run, before, config.where)
    decided = dispatch.decide(run, [], deleted_keys=keys)
    if not any(part.dead for part in decided):
        raise NotFoundError(f"where={config.where}: no document of {config.index} passes; nothing was deleted")
    revived = revive(run, before, decided, 0)
    if revived:
        # Duplicates of what goes: they are embedded now.
        embedder, identity = job.choose_embedder(run)
        check_compatible(before.embedder, identity)
        return job.make(run, revived, decided, (embedder, identity))
    made = Made(
        staged=[],
        decided=decided,
        alike=dispatch.NOTHING_ALIKE,
        embedded=[],
        buried=dispatch.bury(run, before, decided),
        built=[],
        template=before.template,
        schema=before.metadata,
        identity=before.embedder,
        ledger=dispatch.publish_ledger(run, decided, [], []),
    )
    return job.commit(run, made)


def _check(storage: Storage, before: Manifest, config: DeleteConfig) -> None:
    if config.where is not None:
        check(parse(config.where), before.metadata)
        return
    wanted: dict[int, set[str]] = {}
    for doc_id in config.ids:
        wanted.setdefault(partition_of(doc_id, len(before.ledger)), set()).add(doc_id)
    missing: list[str] = []
    for partition, ids in wanted.items():
        known = known_documents(storage, before.ledger[partition])
        present = zip(known.column("doc_id").to_pylist(), known.column("status").to_pylist(), strict=True)
        missing += ids - {doc_id for doc_id, status in present if status != DELETED}
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise NotFoundError(
            f"id={min(missing)}: index {config.index} has no such document{more}; nothing was deleted, 'tandem search' "
            "shows the ids of documents"
        )
