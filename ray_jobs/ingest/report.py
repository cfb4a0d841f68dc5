"""What a run leaves when it ends: its summary for machines and a page for people, and how the last page is found.

    STORE/runs/JOB-ID/metrics.json   the summary of a run that has published
    STORE/runs/JOB-ID/report.html    of that, and of one that was refused

Guaranteed: a store that takes no more costs these copies and not the run: the snapshot is live, and its manifest holds
the counts. Not guaranteed: a page of a run that was interrupted or killed; its events are there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ray_jobs.errors import NotFoundError, RejectedError, TandemError
from ray_jobs.index import layout, manifest
from ray_jobs.index.manifest import Manifest
from ray_jobs.ingest import outcome
from ray_jobs.ingest.context import Run
from ray_jobs.ingest.failures import failures_in
from ray_jobs.ingest.findings import some_duplicates, some_empty
from ray_jobs.ingest.report_page import Shown, render
from ray_jobs.ingest.summary import IngestSummary
from ray_jobs.storage import Storage

REPORT = "report.html"


def leave(run: Run, published: Manifest, made: outcome.Made) -> IngestSummary:
    """Leave page and summary of a run that has published; returns the summary."""
    found = run.findings
    found.candidate, found.counts = published, published.counts
    found.failures = failures_in(run.storage, outcome.letters_of(made.staged, made.embedded))
    with suppress(TandemError):
        if found.counts.duplicates:
            found.duplicates = some_duplicates(run.storage, made.staged, made.decided)
        if found.counts.empty:
            found.empty = some_empty(run.storage, published.ledger)
    found.set_aside = outcome.examples_of(made.embedded)
    used = run.used()
    summary = outcome.summarise(run, published, made, used, _place(run))
    title = f"Published snapshot {published.number} of {published.index}"
    try:
        _write(run, Shown.of(run, used, title))
        _create(run, "metrics.json", summary.model_dump_json(indent=1))
    except TandemError:
        return summary.model_copy(update={"report": None})
    return summary


@contextmanager
def of_failure(run: Run) -> Iterator[None]:
    """Leave a page of a run that is refused inside, and say where."""
    try:
        yield
    except RejectedError as error:
        try:
            _write(run, Shown.of(run, run.used(), f"Nothing was published to {run.config.index}", str(error)))
        except TandemError:
            raise error from None
        raise RejectedError(f"{error}; more in {_place(run)}") from None


@dataclass(frozen=True)
class LastRun:
    """A run that has left a page."""

    job_id: str
    report: str  # where it is
    snapshot: int | None  # that it has published; None for one that was refused


def last(storage: Storage, index: str, snapshot: int | None = None) -> LastRun:
    """The last run over an index that has left a page, or the one that made this snapshot.

    Raises NotFoundError where there is none.
    """
    jobs = _jobs(storage, index) if snapshot is None else [_maker(storage, index, snapshot)]
    for job_id in jobs:
        folder = layout.run_folder(job_id)
        if storage.exists(f"{folder}/{REPORT}"):
            made = _read(storage, f"{folder}/metrics.json").get("snapshot")
            return LastRun(job_id, f"{storage.uri}/{folder}/{REPORT}", made if isinstance(made, int) else None)
    manifest.read_live(storage, index)  # of an index that does not exist that is the error
    which = f"index={index}" if snapshot is None else f"snapshot={snapshot}"
    raise NotFoundError(
        f"{which}: no run in {storage.uri}/runs has left a report of it; 'tandem ingest' and 'tandem delete' do, "
        f"'tandem index info {index}' shows what is live"
    )


def _jobs(storage: Storage, index: str) -> Iterator[str]:
    """The runs over an index, the last first."""
    keys = (item.key.split("/") for item in storage.list("runs"))
    named = sorted({parts[1] for parts in keys if len(parts) == 3 and parts[2] == REPORT}, reverse=True)
    return (job_id for job_id in named if _is_over(storage, job_id, index))


def _is_over(storage: Storage, job_id: str, index: str) -> bool:
    return _read(storage, f"{layout.run_folder(job_id)}/config.json").get("index") == index


def _maker(storage: Storage, index: str, snapshot: int) -> str:
    return manifest.read(storage, index, snapshot).made_by.job_id


def _read(storage: Storage, key: str) -> dict[str, object]:
    with suppress(NotFoundError, ValueError):
        return dict(json.loads(storage.read(key)))
    return {}


def _place(run: Run) -> str:
    return f"{run.storage.uri}/{layout.run_folder(run.job_id)}/{REPORT}"


def _write(run: Run, shown: Shown) -> None:
    _create(run, REPORT, render(shown))


def _create(run: Run, name: str, text: str) -> None:
    run.storage.create(f"{layout.run_folder(run.job_id)}/{name}", text.encode())
