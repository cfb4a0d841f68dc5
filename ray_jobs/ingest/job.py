"""The ingest job: plan, read, decide, compare, embed, train, build, bury, verify, commit.

Guaranteed: readers see the snapshot before or the new one, never a mixture; a run that fails, is interrupted or is
killed leaves the old snapshot live, and the same command goes on from the groups and shards that it has finished; only
documents that are new or have changed are embedded, and what went is found no more; the two sums of the summary hold.
Not guaranteed: that a run which nobody finishes leaves nothing in the store; the next one that publishes removes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from ray_jobs.corpus import metadata
from ray_jobs.corpus.metadata import Schema
from ray_jobs.corpus.sources import list_sources
from ray_jobs.errors import NotFoundError, RejectedError, StorageError, UsageError
from ray_jobs.index import manifest
from ray_jobs.index.manifest import FileRecord, Manifest
from ray_jobs.index.search import Partition
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.index.template import tune, with_recall
from ray_jobs.index.verify import check_new_files
from ray_jobs.ingest import dead_letters, dispatch, outcome, preflight, report, seen
from ray_jobs.ingest.changes import Changes, compared
from ray_jobs.ingest.config import IngestConfig
from ray_jobs.ingest.context import Run
from ray_jobs.ingest.duplicates.over_cluster import find_alike, revive
from ray_jobs.ingest.gone import write_gone
from ray_jobs.ingest.lease import held
from ray_jobs.ingest.outcome import Made
from ray_jobs.ingest.plan import plan_sources
from ray_jobs.ingest.receipts import DecidedPartition, EmbeddedGroup, StagedGroup
from ray_jobs.ingest.record import START
from ray_jobs.ingest.summary import IngestSummary
from ray_jobs.ingest.training import template_of
from ray_jobs.models.embedder import Embedder, EmbedderConfig, EmbedderIdentity, check_compatible, choose_engine
from ray_jobs.progress import Progress, SilentProgress
from ray_jobs.runtime import raise_if_interrupted, session, terminated_as_interrupt
from ray_jobs.storage import Storage, open_storage


def run(config: IngestConfig, progress: Progress | None = None) -> IngestSummary:
    """Ingest the sources of `config` and publish a snapshot, or find that nothing changed.

    Raises UsageError for an impossible request, NotFoundError for a source or model that does not exist, RejectedError
    when too many documents fail or recall is below its target, ConflictError when another run writes to the index or
    published first, StorageError when the store refuses; in every case the old snapshot stays live.
    """
    storage = open_storage(config.store)
    # Workers may stand in another folder.
    config = config.model_copy(update={"store": storage.uri})
    before = live(storage, config.index)
    preflight.check_masks(before, config)
    listed = list_sources(config.sources, config.id_prefix)
    known = seen.read(storage, before.seen if before else None)
    with compared(listed, known, again=config.retry_dead_letters) as changes:
        plan = plan_sources(changes, config.group_bytes)
        if before is not None and not _is_asked_for_more(before, config, changes):
            return outcome.unchanged(storage, before, plan)
        # Ray handles signals its own way; what comes after its start counts.
        with session() as cluster, terminated_as_interrupt():
            under_way = Run(storage, config, plan, before, cluster, progress or SilentProgress())
            with _writing(under_way), report.of_failure(under_way):
                return _publish(under_way)


@contextmanager
def over(storage: Storage, before: Manifest, command: str, progress: Progress | None) -> Iterator[Run]:
    """A run that reads no source and writes to the index, as the only one."""
    with session() as cluster, terminated_as_interrupt(), compared(seen=seen.read(storage, before.seen)) as changes:
        under_way = Run.over(storage, before, changes, cluster, progress or SilentProgress(), command)
        with _writing(under_way):
            yield under_way


@contextmanager
def _writing(run: Run) -> Iterator[None]:
    """Write to the index as the only run; says of an interruption that the same command goes on."""
    preflight.check_writable(run.storage, run.job_id)
    with held(run.storage, run.config.index, run.job_id), run.kept(), _told_how_to_go_on(run):
        yield


@contextmanager
def _told_how_to_go_on(run: Run) -> Iterator[None]:
    """Say of an interruption that the same command goes on, and of another run that it was first."""
    try:
        _check_still_live(run)
        yield
    except KeyboardInterrupt:
        kept = "; what it has finished is kept, run the same command to go on" if run.work.begun() else ""
        raise KeyboardInterrupt(f"what was live is live{kept}") from None
    except NotFoundError:
        _check_still_live(run)  # whoever publishes removes what was in flight
        raise


def _check_still_live(run: Run) -> None:
    if manifest.live_after(run.storage, run.config.index, run.parent) > run.parent:
        raise manifest.taken(run.config.index, run.parent + 1)


def live(storage: Storage, name: str) -> Manifest | None:
    """The live snapshot's manifest; None before the first ingest."""
    return manifest.read_live(storage, name) if manifest.numbers(storage, name) else None


def _publish(run: Run) -> IngestSummary:
    preflight.check_resources(run.config, run.cluster)
    embedder, identity = choose_embedder(run)
    run.rebuilds = _rebuilds(run, identity)
    staged = dispatch.stage(run)
    _check_failures(run, staged)
    run.plan.changes.fail(dead_letters.sources_of(run.storage, outcome.letters_of(staged)))
    gone = write_gone(run.storage, run.work.folder, run.plan.changes) if run.config.prune else None
    if run.before is not None and run.rebuilds:
        staged += dispatch.take_over(run, run.before, gone)
    decided = dispatch.decide(run, staged, gone)
    if run.before is not None and not run.rebuilds:
        staged += revive(run, run.before, decided, len(staged))
    return make(run, staged, decided, (embedder, identity))


def make(
    run: Run,
    staged: Sequence[StagedGroup],
    decided: Sequence[DecidedPartition],
    model: tuple[EmbedderConfig, EmbedderIdentity],
) -> IngestSummary:
    """Embed what is new, build its shards, bury what has died, and publish; or find that nothing has changed."""
    embedder, identity = model
    if run.before is not None and not run.rebuilds:
        identity = run.before.embedder  # engine and precision may differ
    schema = _schema(run, staged)
    alike = find_alike(run, staged, decided, schema)
    embedded = dispatch.embed(run, staged, decided, alike, embedder, identity, schema)
    _check_failures(run, staged, decided, embedded)
    letters = outcome.letters_of(staged, embedded)
    if run.before is not None and not outcome.changes(run, decided, embedded, letters):
        run.record.event("unchanged", snapshot=run.before.number)
        summary = outcome.unchanged(run.storage, run.before, run.plan, letters)
        clean_up(run, outcome.files_of(staged, alike, letters), run.before)
        return summary
    run.plan.changes.fail(dead_letters.sources_of(run.storage, letters))
    template = template_of(run, embedded, identity.dimension)
    built = dispatch.build(run, embedded, template, schema, identity.dimension)
    buried = [] if run.before is None or run.rebuilds else dispatch.bury(run, run.before, decided)
    ledger = dispatch.publish_ledger(run, decided, embedded, built)
    return commit(run, Made(staged, decided, alike, embedded, buried, built, template, schema, identity, ledger))


def commit(run: Run, made: Made) -> IngestSummary:
    """Verify what was made and publish it."""
    published = _verify(run, outcome.make_manifest(run, made))
    raise_if_interrupted()
    manifest.commit(run.storage, published)
    run.record.event("published", snapshot=published.number)
    summary = report.leave(run, published, made)
    letters = outcome.letters_of(made.staged, made.embedded)
    clean_up(run, outcome.files_of(made.staged, made.alike, letters), published)
    return summary


def clean_up(run: Run, made: Sequence[FileRecord], live: Manifest) -> None:
    """Remove what was in flight, and of what was made what the live snapshot does not name."""
    with suppress(StorageError):  # a snapshot is live; what is left, 'tandem index gc' removes
        run.work.clear()
        for key in {record.key for record in made} - {record.key for record in live.files()}:
            run.storage.delete(key)


def _is_asked_for_more(before: Manifest, config: IngestConfig, changes: Changes) -> bool:
    """Whether the live snapshot is not yet what this configuration makes of these files."""
    changed = bool(changes.fresh) or (config.prune and bool(changes.vanished))
    return changed or config.retrain or before.made_by.config_hash != config.content_hash()


def _rebuilds(run: Run, identity: EmbedderIdentity) -> bool:
    """Whether the rows of the snapshot before must be made anew."""
    if run.before is None or run.config.retrain or run.before.made_by.config_hash != run.config.content_hash():
        return True
    try:
        check_compatible(run.before.embedder, identity)
    except UsageError:
        return True
    return False


def _check_failures(
    run: Run,
    staged: Sequence[StagedGroup],
    decided: Sequence[DecidedPartition] = (),
    embedded: Sequence[EmbeddedGroup] = (),
) -> None:
    try:
        outcome.check_failures(run, staged, decided, embedded)
    except RejectedError:
        dispatch.read_again(run, staged)
        raise


def choose_embedder(run: Run) -> tuple[EmbedderConfig, EmbedderIdentity]:
    """Fix model, engine and precision once, for every worker; a model that must be converted is converted here."""
    with run.timed(START):
        chosen = choose_engine(run.config.embedder, run.storage)
        if chosen.threads is None and chosen.device == "cpu":
            chosen = chosen.model_copy(update={"threads": run.embed_cpus()})
        embedder = Embedder.load(chosen, run.storage)
        preflight.check_choices(run.config, embedder)
        return chosen, embedder.identity


def _verify(run: Run, candidate: Manifest) -> Manifest:
    """Check what was written, measure recall, and refuse what does not reach the target."""
    run.findings.candidate, run.findings.counts = candidate, candidate.counts
    with run.timed("verify"):
        problems = check_new_files(run.storage, candidate, run.before)
        problems += candidate.counts.check()
        if problems:
            raise RejectedError(
                f"index={run.config.index}: the new snapshot does not verify ({problems[0]}); nothing was "
                f"published, run the command again"
            )
        snapshot = Snapshot(candidate, Partition.open(run.storage, candidate))
        found = tune(snapshot, run.config.recall_target, seen=run.measured)
    if found is not None and found.recall < found.target:
        # Documents have come that the template was not trained on.
        remedy = "lower recall_target or choose another index_type"
        if not run.rebuilds:
            remedy = f"train it on what there is now with --retrain, {remedy}"
        raise RejectedError(
            f"recall_target={found.target}: index_type={candidate.template.factory} reaches recall@{found.k} "
            f"{found.recall:.3f} at most; nothing was published, {remedy}"
        )
    return with_recall(candidate, found)


def _schema(run: Run, staged: Sequence[StagedGroup]) -> Schema:
    """The metadata columns: inferred from every document, then as the user set them.

    Those of a snapshot that is built on keep their types: a value that does not fit becomes a dead letter.
    """
    schema: Schema = {}
    for group in staged:
        schema = metadata.merge(schema, group.metadata)
    if run.before is not None and not run.rebuilds:
        schema = {**schema, **run.before.metadata}
    unknown = sorted(set(run.config.metadata) - set(schema))
    if unknown:
        raise UsageError(
            f"metadata.{unknown[0]}: no document has this column; expected one of "
            f"{', '.join(sorted(schema)) or '(the corpus has none)'}"
        )
    return {**schema, **run.config.metadata}
