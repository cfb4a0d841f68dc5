"""The ingest job: plan, read, decide, embed, train, build, verify, commit.

Guaranteed: readers see the snapshot before or the new one, never a mixture; a run that fails, is interrupted or is
killed leaves the old snapshot live; the two sums of the summary hold; the same sources and configuration again embed
nothing. Not guaranteed here: that a run goes on where a killed one stopped.
"""

from __future__ import annotations

from collections.abc import Sequence

from ray_jobs.corpus import metadata
from ray_jobs.corpus.metadata import Schema
from ray_jobs.corpus.sources import list_sources
from ray_jobs.errors import ConflictError, RejectedError, UsageError
from ray_jobs.index import layout, manifest
from ray_jobs.index.factory import choose, training_size
from ray_jobs.index.manifest import FileRecord, Manifest, TemplateRecord
from ray_jobs.index.search import Partition
from ray_jobs.index.shard import Shard
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.index.template import default_nprobe, train, tune, with_recall
from ray_jobs.index.verify import check_file
from ray_jobs.ingest import dispatch, outcome, preflight
from ray_jobs.ingest.build import sample_vectors
from ray_jobs.ingest.config import IngestConfig
from ray_jobs.ingest.context import Run
from ray_jobs.ingest.plan import SourcePlan, plan_sources
from ray_jobs.ingest.receipts import EmbeddedGroup, StagedGroup
from ray_jobs.ingest.stage import content_sum
from ray_jobs.ingest.summary import IngestSummary
from ray_jobs.models.embedder import Embedder, EmbedderConfig, EmbedderIdentity, choose_engine
from ray_jobs.progress import Progress, SilentProgress
from ray_jobs.runtime import raise_if_interrupted, session, terminated_as_interrupt
from ray_jobs.storage import Storage, open_storage, sha256_of


def run(config: IngestConfig, progress: Progress | None = None) -> IngestSummary:
    """Ingest the sources of `config` and publish a snapshot, or find that nothing changed.

    Raises UsageError for an impossible request, NotFoundError for a source or model that does not exist, RejectedError
    when too many documents fail or recall is below its target, ConflictError when another run published first,
    StorageError when the store refuses; in every case the old snapshot stays live.
    """
    storage = open_storage(config.store)
    # Workers may stand in another folder.
    config = config.model_copy(update={"store": storage.uri})
    before = live(storage, config.index)
    plan = plan_sources(list(list_sources(config.sources, config.id_prefix)), config.group_bytes)
    if before is not None and _same_inputs(before, config, plan):
        return outcome.unchanged(storage, before, plan)
    # Ray handles signals its own way; what comes after its start counts.
    with session() as cluster, terminated_as_interrupt():
        under_way = Run(storage, config, plan, before, cluster, progress or SilentProgress())
        try:
            return _publish(under_way)
        finally:
            under_way.clean_up()


def live(storage: Storage, name: str) -> Manifest | None:
    """The live snapshot's manifest; None before the first ingest."""
    return manifest.read_live(storage, name) if manifest.numbers(storage, name) else None


def _publish(run: Run) -> IngestSummary:
    embedder, identity = _choose_embedder(run)
    preflight.check_writable(run.storage, run.job_id)
    staged = dispatch.stage(run)
    outcome.check_failures(run, staged, [])
    if run.before is not None and _same_documents(run, run.before, staged, identity):
        return outcome.unchanged(run.storage, run.before, run.plan)
    schema = _schema(run.config, staged)
    embedded = dispatch.embed(run, staged, dispatch.decide(run, staged), embedder, schema)
    outcome.check_failures(run, staged, embedded)
    template = _train(run, embedded, identity.dimension)
    shards = dispatch.build(run, embedded, template, schema, identity.dimension)
    ledger = dispatch.publish_ledger(run, embedded)
    candidate = outcome.make_manifest(run, staged, embedded, template, shards, schema, identity, ledger)
    published = _verify(run, candidate)
    raise_if_interrupted()
    manifest.commit(run.storage, published)
    return outcome.summarise(run, published, staged, embedded)


def _choose_embedder(run: Run) -> tuple[EmbedderConfig, EmbedderIdentity]:
    """Fix model, engine and precision once, for every worker; a model that must be converted is converted here."""
    with run.timed("start"):
        chosen = choose_engine(run.config.embedder, run.storage)
        if chosen.threads is None and chosen.device == "cpu":
            chosen = chosen.model_copy(update={"threads": run.embed_cpus()})
        embedder = Embedder.load(chosen, run.storage)
        preflight.check_choices(run.config, embedder)
        return chosen, embedder.identity


def _train(run: Run, embedded: Sequence[EmbeddedGroup], dimension: int) -> TemplateRecord:
    """Choose the index type and train the template on a random sample."""
    rows = sum(group.rows for group in embedded)
    if rows == 0:
        raise RejectedError(
            f"index={run.config.index}: none of the sources has any text to index; nothing was published, name sources "
            f"with text"
        )
    with run.timed("train"), run.storage.scratch() as folder:
        chosen = choose(run.config.index_type, rows, dimension)
        sample = sample_vectors(run.storage, embedded, training_size(chosen, rows), dimension, seed=0)
        path = folder / "template.faiss"
        trained_on = train(chosen, sample, dimension, path)
        digest = sha256_of(path)
        key = layout.template(run.config.index, digest)
        size = path.stat().st_size
        try:
            run.storage.upload(key, path)
        except ConflictError:
            # Its name is the hash of its bytes: an earlier run left the very same template.
            run.storage.local(key, digest)
    return TemplateRecord(
        factory=chosen.factory,
        file=FileRecord(key=key, size=size, sha256=digest),
        metric="inner_product",
        nprobe=default_nprobe(chosen),
        trained_on=trained_on,
    )


def _verify(run: Run, candidate: Manifest) -> Manifest:
    """Check what was written, measure recall, and refuse what does not reach the target."""
    with run.timed("verify"):
        problems = [problem for file in candidate.files() if (problem := check_file(run.storage, file))]
        problems += candidate.counts.check()
        if problems:
            raise RejectedError(
                f"index={run.config.index}: the new snapshot does not verify ({problems[0]}); nothing was "
                f"published, run the command again"
            )
        dimension = candidate.embedder.dimension
        shards = [Shard.open(run.storage, item, n, dimension) for n, item in enumerate(candidate.shards)]
        report = tune(Snapshot(candidate, Partition(candidate, shards)), run.config.recall_target)
    if report is not None and report.recall < report.target:
        raise RejectedError(
            f"recall_target={report.target}: index_type={candidate.template.factory} reaches recall@{report.k} "
            f"{report.recall:.3f} at most; nothing was published, lower recall_target or choose another index_type"
        )
    return with_recall(candidate, report)


def _same_inputs(before: Manifest, config: IngestConfig, plan: SourcePlan) -> bool:
    """Whether the live snapshot was made from these very files with this configuration."""
    made = before.made_by
    return made.config_hash == config.content_hash() and all(
        made.inputs.get(name) == digest for name, digest in plan.inputs.items()
    )


def _same_documents(run: Run, before: Manifest, staged: Sequence[StagedGroup], identity: EmbedderIdentity) -> bool:
    """Whether what was read is what the live snapshot holds, although the files were touched."""
    read = content_sum([group for group in staged if not group.kept])
    same_config = before.made_by.config_hash == run.config.content_hash()
    return same_config and before.embedder == identity and before.made_by.documents_hash == read


def _schema(config: IngestConfig, staged: Sequence[StagedGroup]) -> Schema:
    """The metadata columns: inferred from every document, then as the user set them."""
    schema: Schema = {}
    for group in staged:
        schema = metadata.merge(schema, group.metadata)
    unknown = sorted(set(config.metadata) - set(schema))
    if unknown:
        raise UsageError(
            f"metadata.{unknown[0]}: no document has this column; expected one of "
            f"{', '.join(sorted(schema)) or '(the corpus has none)'}"
        )
    return {**schema, **config.metadata}
