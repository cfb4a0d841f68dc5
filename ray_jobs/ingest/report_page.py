"""The page about a run: one file that needs no other, for people.

Guaranteed: every text is escaped; each chart has its figures beside it or below it as text; its length does not depend
on the corpus: of everything that may be long the first, the slowest or the largest are shown, and how many there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import yaml

from ray_jobs.ingest import report_documents, report_index, report_stages
from ray_jobs.ingest.config import IngestConfig
from ray_jobs.ingest.context import Run
from ray_jobs.ingest.findings import Findings
from ray_jobs.ingest.stage_record import StageRecord
from ray_jobs.ingest.usage import Used
from ray_jobs.reporting import html_page as page
from ray_jobs.reporting.drawing import short
from ray_jobs.reporting.figures import duration, size

_SOURCES = 20


@dataclass(frozen=True)
class Shown:
    """What the page tells of a run."""

    title: str
    refused: str | None  # why nothing was published
    job_id: str
    command: str
    began: str
    seconds: float
    config: IngestConfig
    stages: Mapping[str, StageRecord]
    used: Used
    found_before: Mapping[str, int]  # pieces that a run which did not end had finished
    findings: Findings
    files: report_stages.Files

    @classmethod
    def of(cls, run: Run, used: Used, title: str, refused: str | None = None) -> Shown:
        """Of a run as it stands."""
        return cls(
            title=title,
            refused=refused,
            job_id=run.job_id,
            command=run.command,
            began=run.record.began_at,
            seconds=run.record.elapsed,
            config=run.config,
            stages=run.record.stages,
            used=used,
            found_before={name: number for name, number in run.found.items() if number},
            findings=run.findings,
            files=run.plan.groups.files,
        )


def render(shown: Shown) -> str:
    """The page as HTML."""
    parts = [
        page.paragraph(f"Refused: {shown.refused}") if shown.refused else "",
        _facts(shown),
        report_documents.section(shown.findings, shown.found_before),
        report_stages.throughput(shown.stages, shown.seconds),
        report_stages.utilisation(shown.stages, shown.used, shown.seconds),
        report_stages.slowest(shown.stages, shown.files),
        report_index.recall(shown.findings, shown.config.recall_target),
        report_documents.failures(shown.findings.failures),
        report_index.shards(shown.findings.candidate),
        _asked(shown),
    ]
    return page.document(shown.title, "\n".join(part for part in parts if part))


def _facts(shown: Shown) -> str:
    counts, made = shown.findings.counts, shown.findings.candidate
    cost = shown.used.cost
    facts = [("began", shown.began), ("took", duration(shown.seconds))]
    if counts is not None:
        facts += [("documents indexed", f"{counts.indexed:,}"), ("chunks", f"{counts.chunks:,}")]
    if made is not None:
        found = shown.findings.recall
        recall = "exact" if found is None else f"recall@{found.k} {found.recall:.3f}"
        facts += [
            ("index type", f"{len(made.shards):,} shards of {made.template.factory}, {recall}"),
            ("size", size(sum(file.size for file in made.files()))),
            ("embedder", f"{made.embedder.model} ({made.embedder.engine} {made.embedder.precision})"),
        ]
    facts.append(("core-hours", f"{short(cost.core_hours)}, {short(cost.core_hours_busy)} of them busy"))
    if cost.gpu_hours:
        facts.append(("GPU-hours", f"{short(cost.gpu_hours)}, {short(cost.gpu_hours_busy)} of them in forward passes"))
    return page.facts(facts)


def _asked(shown: Shown) -> str:
    """What the run was asked for."""
    config = shown.config
    facts = [
        ("command", f"tandem {shown.command}"),
        ("index", config.index),
        ("store", config.store),
        ("run", shown.job_id),
    ]
    listed = list(config.sources[:_SOURCES])
    if len(config.sources) > _SOURCES:
        listed.append(f"and {len(config.sources) - _SOURCES:,} more")
    settings = config.model_dump(mode="json", exclude={"sources"})
    text = yaml.safe_dump({"sources": listed, **settings}, sort_keys=False, allow_unicode=True)
    return page.section("Asked for", page.facts(facts), page.folded("All settings", f"<pre>{escape(text)}</pre>"))
