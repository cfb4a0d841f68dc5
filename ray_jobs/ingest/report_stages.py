"""Of the page about a run: its stages, how fast they went, who worked on them, and their slowest pieces."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence

from ray_jobs.ingest.record import DRIVER
from ray_jobs.ingest.stage_record import SLOWEST, StageRecord
from ray_jobs.ingest.usage import StageUsage, Used
from ray_jobs.reporting import html_page as page
from ray_jobs.reporting.bars import Row, Span, span_chart
from ray_jobs.reporting.charts import Series, line_chart
from ray_jobs.reporting.drawing import short
from ray_jobs.reporting.figures import duration, size

Files = Callable[[int], Sequence[str]]
"""The names of the files of a group."""
_WORKERS = 24  # rows of the chart
_IDLE = 0.02  # busy share of a worker below which nothing is drawn
_AMOUNTS = (("chunks", "chunks", 1.0), ("documents", "documents", 1.0), ("bytes", "MB", 1e6))


def throughput(stages: Mapping[str, StageRecord], seconds: float) -> str:
    """Rates over time, a chart a stage: each goes on in a time of its own, at a scale of its own."""
    charts = [chart for stage in stages.values() if (chart := _rate(stage, seconds))]
    return page.section("Throughput", *charts) if charts else ""


def utilisation(stages: Mapping[str, StageRecord], used: Used, seconds: float) -> str:
    """When each stage went on and how busy its places were, and the workers."""
    if not stages:
        return ""
    width, name = _unit_of(seconds)
    total = sum(stage.seconds for stage in used.stages.values()) or 1.0
    rows = [
        Row(
            stage.name,
            [Span(start / width, end / width) for start, end in stage.spans],
            f"{duration(own.seconds)}, {own.seconds / total:.0%}",
            f"{own.slots} places, {own.utilisation:.0%} busy" if own.slots > 1 else f"{own.utilisation:.0%} busy",
        )
        for stage, own in zip(stages.values(), used.stages.values(), strict=True)
    ]
    told = page.paragraph(f"What took longest is {used.bottleneck.line()}.") if used.bottleneck else ""
    x = f"{name} since the run began"
    parts = [told, span_chart("Stages", rows, end=seconds / width, x=x), _table(used.stages), _workers(stages, seconds)]
    return page.section("Where the time went", *parts)


def slowest(stages: Mapping[str, StageRecord], files: Files) -> str:
    """The pieces that took the longest, of all stages."""
    found = (
        (seconds, stage.name, number, count, worker)
        for stage in stages.values()
        for seconds, number, count, worker in stage.slowest
        if worker != DRIVER
    )
    rows = [
        (f"{name} {number}", duration(seconds), size(count) if count else "", worker, _content(name, number, files))
        for seconds, name, number, count, worker in heapq.nlargest(SLOWEST, found)
    ]
    if not rows:
        return ""
    return page.section(
        "Slowest pieces",
        page.table("A group of documents, or a shard", ("piece", "time", "size", "worker", "from"), rows, "texts"),
    )


def _rate(stage: StageRecord, seconds: float) -> str:
    """What counts most of a stage, over time, with the mean of everything; empty for one that makes nothing."""
    made = [amount for amount in _AMOUNTS if stage.timeline.total(amount[0])]
    if not made or not stage.seconds:
        return ""
    name, told, unit = made[0]
    xs, ys = stage.timeline.rates(name)
    width, clock = _unit_of(seconds)
    means = [f"{short(stage.timeline.total(key) / size / stage.seconds)} {words}" for key, words, size in made]
    line = Series("a second, on average", [x / width for x in xs], [y / unit for y in ys], ", ".join(means))
    title, y = f"{stage.name}: {told} a second", f"{told} a second"
    return line_chart(title, [line], x=f"{clock} since the run began", y=y, shown=(0.0,))


def _table(stages: Mapping[str, StageUsage]) -> str:
    head = ("stage", "pieces", "documents/s", "chunks/s", "MB/s", "busy", "retries")
    rows = [
        (
            name,
            f"{stage.pieces:,}" + (f" and {stage.found:,} from before" if stage.found else ""),
            short(stage.rate(stage.documents)) if stage.documents else "",
            short(stage.rate(stage.chunks)) if stage.chunks else "",
            short(stage.rate(stage.bytes) / 1e6) if stage.bytes else "",
            f"{duration(stage.busy_seconds)} on {stage.slots:,} x {short(stage.cpus)} CPU"
            + (f", {short(stage.gpus)} GPU" if stage.gpus else ""),
            f"{stage.retries:,}",
        )
        for name, stage in stages.items()
    ]
    return page.table("Each stage over its own time", head, rows)


def _workers(stages: Mapping[str, StageRecord], seconds: float) -> str:
    """The workers that did the most, and when they were busy."""
    width, name = _unit_of(seconds)
    busy: dict[str, float] = {}
    for stage in stages.values():
        for worker, use in stage.workers.items():
            busy[worker] = busy.get(worker, 0.0) + use.busy_seconds
    shown = heapq.nlargest(_WORKERS, (worker for worker in busy if worker != DRIVER), key=lambda worker: busy[worker])
    if not shown:
        return ""
    rows = []
    for worker in sorted(shown):
        spans = [
            Span((x - stage.busy.width / 2) / width, (x + stage.busy.width / 2) / width, share)
            for stage in stages.values()
            for x, share in zip(*stage.busy.rates(worker), strict=True)
            if share > _IDLE
        ]
        pieces = sum(stage.workers[worker].pieces for stage in stages.values() if worker in stage.workers)
        share = f"{busy[worker] / seconds:.0%} of the run" if seconds else ""
        rows.append(Row(worker, _joined(spans), duration(busy[worker]), f"{pieces:,} pieces, {share}"))
    more = len(busy) - (DRIVER in busy) - len(shown)
    title = f"Workers ({len(shown)} of {len(shown) + more:,}, those that did most)" if more else "Workers"
    return span_chart(title, rows, end=seconds / width, x=f"{name} since the run began; machine and process")


def _joined(spans: Sequence[Span]) -> list[Span]:
    """Neighbours of about one weight as one."""
    found: list[Span] = []
    for span in spans:
        rounded = round(min(1.0, span.weight), 1)
        last = found[-1] if found else None
        if last is not None and last.weight == rounded and abs(last.end - span.start) < 1e-9:
            found[-1] = Span(last.start, span.end, rounded)
        else:
            found.append(Span(span.start, span.end, rounded))
    return found


def _content(stage: str, number: int, files: Files) -> str:
    """Of which files a group is made; those of documents that the snapshot before holds are not told."""
    names = files(number) if stage in ("read", "embed") else ()
    if not names:
        return ""
    return names[0] + (f" and {len(names) - 1:,} more" if len(names) > 1 else "")


def _unit_of(seconds: float) -> tuple[float, str]:
    if seconds < 600:
        return 1.0, "seconds"
    return (60.0, "minutes") if seconds < 7200 else (3600.0, "hours")
