"""Of the page about a run: the gate of recall, and the shards."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from ray_jobs.index.manifest import Manifest, RecallReport, ShardRecord
from ray_jobs.ingest.findings import Findings
from ray_jobs.reporting import html_page as page
from ray_jobs.reporting.bars import Bar, bar_chart
from ray_jobs.reporting.charts import Series, line_chart
from ray_jobs.reporting.figures import size

_SHARDS = 32  # that are shown one by one
_BINS = 12


def recall(findings: Findings, target: float) -> str:
    """Recall by the lists that are scanned and the candidates that are rescored, beside its target."""
    made, found = findings.candidate, findings.recall
    if made is None:
        return ""
    if found is None:
        told = f"{made.template.factory} is exact: every vector is compared, there is nothing to measure."
        return page.section("Recall", page.paragraph(told if made.live_rows else "There are no rows to search."))
    passed = "reached" if found.recall >= target else "not reached"
    lists = f"{found.nprobe:,} inverted lists scanned a query and " if found.nprobe else ""
    told = (
        f"Recall@{found.k} of {found.queries:,} random rows against an exact scan: {found.recall:.4f}, target "
        f"{target:g} {passed}, with {lists}{found.oversampling} times as many candidates rescored as are asked for."
    )
    rows = [
        (f"{one.nprobe:,}", f"{one.oversampling}", f"{one.recall:.4f}", f"{one.recall - target:+.4f}")
        for one in findings.recalls
    ]
    head = ("nprobe", "candidates rescored", f"recall@{found.k}", "to the target")
    table = page.table("As it was measured", head, rows) if rows else ""
    return page.section("Recall", page.paragraph(told), _by_nprobe(findings.recalls, target), table)


def _by_nprobe(measured: Sequence[RecallReport], target: float) -> str:
    """A line for each number of candidates; empty for an index without inverted lists."""
    steps = [one for one in measured if one.nprobe]
    if not steps:
        return ""
    lines = []
    for oversampling in dict.fromkeys(one.oversampling for one in steps):
        own = sorted((one.nprobe, one.recall) for one in steps if one.oversampling == oversampling)
        lines.append(Series(f"{oversampling} x candidates", [float(n) for n, _ in own], [share for _, share in own]))
    ends = [float(min(one.nprobe for one in steps)), float(max(one.nprobe for one in steps))]
    lines.append(Series("target", ends, [target] * 2))
    name = f"recall@{steps[0].k}"
    return line_chart(f"{name.capitalize()} by nprobe", lines, x="nprobe", y=name, doubling=True)


def shards(made: Manifest | None) -> str:
    """Rows and bytes of the shards; of many how they are spread."""
    if made is None or not made.shards:
        return ""
    if len(made.shards) <= _SHARDS:
        bars = [Bar(f"{n}", record.rows - record.dead_rows, *_told(record)) for n, record in enumerate(made.shards)]
        return page.section("Shards", bar_chart("Live rows of each shard", bars, x="rows"))
    largest = heapq.nlargest(10, enumerate(made.shards), key=lambda item: _bytes(item[1]))
    rows = [(str(n), f"{record.rows:,}", f"{record.dead_rows:,}", size(_bytes(record))) for n, record in largest]
    table = page.table("The largest", ("shard", "rows", "dead rows", "size"), rows)
    return page.section("Shards", bar_chart("How many shards hold so many live rows", _spread(made), x="shards"), table)


def _spread(made: Manifest) -> list[Bar]:
    rows = [record.rows - record.dead_rows for record in made.shards]
    low, high = min(rows), max(rows)
    width = max(1, -(-(high - low + 1) // _BINS))
    counts = [0] * (-(-(high - low + 1) // width))
    for number in rows:
        counts[(number - low) // width] += 1
    return [
        Bar(f"{low + n * width:,} to {low + (n + 1) * width - 1:,}", count, f"{count:,}")
        for n, count in enumerate(counts)
    ]


def _told(record: ShardRecord) -> tuple[str, str]:
    dead = f", {record.dead_rows:,} dead rows beside them" if record.dead_rows else ""
    return f"{record.rows - record.dead_rows:,}", f"{record.documents:,} documents, {size(_bytes(record))}{dead}"


def _bytes(record: ShardRecord) -> int:
    return sum(file.size for file in record.files.values())
