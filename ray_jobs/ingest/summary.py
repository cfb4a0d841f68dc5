"""What an ingest run did, for people and for machines."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from ray_jobs.index.manifest import Counts, RecallReport
from ray_jobs.ingest.usage import Bottleneck, Cost, StageUsage
from ray_jobs.reporting.figures import size


class IngestSummary(BaseModel):
    """The outcome of one run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: str
    store: str
    outcome: Literal["published", "unchanged"]
    snapshot: int
    job_id: str
    counts: Counts
    reasons: dict[str, int]  # of what failed
    examples: tuple[str, ...]  # of what failed, a line each
    masked: dict[str, int] = {}  # personal data, by kind
    set_aside: tuple[tuple[str, str, str], ...] = ()  # examples of filtered documents and duplicates: fate, id, why
    shards: int
    index_type: str
    recall: RecallReport | None
    embedder: str
    engine: str
    bytes: int  # of the snapshot
    seconds: dict[str, float]  # a stage
    gone: int  # documents of the snapshot before that were replaced or removed
    found: dict[str, int]  # by stage, pieces that a run which did not end had finished
    usage: dict[str, StageUsage]  # by stage
    bottleneck: Bottleneck | None
    cost: Cost | None
    report: str | None  # where the page about this run is

    def lines(self) -> list[str]:
        """The summary as people read it."""
        counts = self.counts
        title = (
            f"published snapshot {self.snapshot} of {self.index} in {self.store}"
            if self.outcome == "published"
            else f"nothing changed: snapshot {self.snapshot} of {self.index} is live, nothing was embedded"
        )
        lines = [title]
        if counts.sources:
            lines.append(
                f"sources   {counts.sources:,} listed = {counts.read:,} read + {counts.unchanged:,} unchanged "
                f"+ {counts.sources_failed:,} failed"
            )
        if self.outcome == "published":
            lines += self._published()
        if self.counts.filtered and self.outcome == "published":
            rules = ", ".join(f"{number:,} {rule}" for rule, number in self.counts.filtered.items())
            lines.append(f"filtered  {rules}")
        if self.masked:
            lines.append("masked    " + ", ".join(f"{number:,} {kind}" for kind, number in sorted(self.masked.items())))
        lines += [f"          {fate}: {doc_id} ({why})" for fate, doc_id, why in self.set_aside]
        if self.reasons:
            listed = ", ".join(f"{number:,} {reason}" for reason, number in sorted(self.reasons.items()))
            lines.append(f"failed    {listed}")
            lines += [f"          {example}" for example in self.examples]
            lines.append(f"          'tandem index dead-letters {self.index}' lists what failed, and why")
        if self.report:
            lines.append(f"report    {self.report}")
        return lines

    def _published(self) -> list[str]:
        counts = self.counts
        filtered = sum(counts.filtered.values())
        recall = "exact" if self.recall is None else f"recall@{self.recall.k} {self.recall.recall:.3f}"
        stages = ", ".join(f"{name} {value:.1f} s" for name, value in self.seconds.items())
        found = ", ".join(f"{number:,} {name}" for name, number in self.found.items())
        return [
            *([f"resumed   {found} by a run that did not end"] if found else []),
            *([f"gone      {self.gone:,} documents of before, replaced or removed"] if self.gone else []),
            f"documents {counts.documents:,} produced = {counts.indexed:,} indexed + {filtered:,} filtered "
            f"+ {counts.duplicates:,} duplicates + {counts.empty:,} empty + {counts.failed:,} failed"
            + (f" ({counts.kept:,} kept from before)" if counts.kept else ""),
            f"chunks    {counts.chunks:,} in {self.shards} shards of {self.index_type} ({recall}), {size(self.bytes)}",
            f"embedder  {self.embedder} ({self.engine})",
            f"time      {sum(self.seconds.values()):.1f} s: {stages}",
            *self._used(),
        ]

    def _used(self) -> list[str]:
        rates = "; ".join(filter(None, map(_rates, self.usage, self.usage.values())))
        return [
            *([f"rates     {rates}"] if rates else []),
            *([f"slowest   {self.bottleneck.line()}"] if self.bottleneck else []),
            *([f"cost      {self.cost.line()}"] if self.cost else []),
        ]


def _rates(name: str, stage: StageUsage) -> str:
    """What a stage has made a second; empty for one that makes no documents and no chunks."""
    parts = [
        *([f"{stage.rate(stage.documents):,.1f} documents/s"] if stage.documents else []),
        *([f"{stage.rate(stage.chunks):,.1f} chunks/s"] if stage.chunks else []),
    ]
    if not parts:
        return ""
    return f"{name} {', '.join(parts)}, {stage.rate(stage.bytes) / 1e6:,.2f} MB/s"
