"""Of the page about a run: what became of its files and documents, with examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ray_jobs.index.manifest import Counts
from ray_jobs.ingest.failures import Failures
from ray_jobs.ingest.findings import Findings
from ray_jobs.reporting import html_page as page
from ray_jobs.reporting.bars import Bar, bar_chart

_REASONS = 30


def section(findings: Findings, found_before: Mapping[str, int]) -> str:
    """From the files that were listed to the documents that are indexed."""
    counts = findings.counts
    if counts is None:
        return ""
    parts = []
    if found_before:
        listed = ", ".join(f"{number:,} {name}" for name, number in found_before.items())
        parts.append(page.paragraph(f"A run that did not end had finished {listed}; they were taken from it."))
    if counts.sources:
        parts.append(bar_chart("Files", _files(counts), x="files"))
    parts.append(bar_chart("Documents", _documents(counts), x="documents"))
    if reasons := findings.failures.reasons.most_common(_REASONS):
        listed = ", ".join(f"{number:,} {reason}" for reason, number in reasons)
        parts.append(page.paragraph(f"What failed, files and documents: {listed}."))
    parts.append(_examples("Duplicates, of one id", findings.duplicates))
    for fate in dict.fromkeys(fate for fate, *_ in findings.set_aside):
        own = [f"{doc_id}: {why}" for of, doc_id, why in findings.set_aside if of == fate]
        parts.append(_examples(f"Set aside, {fate}", own))
    parts.append(_examples("Documents without text", findings.empty))
    return page.section("What became of the documents", *parts)


def failures(found: Failures) -> str:
    """What failed, by reason, with some of each."""
    if not found.reasons:
        return ""
    reasons = found.reasons.most_common(_REASONS)
    summary = page.table("How many for each reason", ("reason", "documents"), [(r, f"{n:,}") for r, n in reasons])
    rows = [
        (letter.source, letter.locator, reason, letter.message)
        for reason, _ in reasons
        for letter in found.letters.get(reason, ())
    ]
    shown = f"{len(rows):,} of {found.reasons.total():,}"
    some = page.table(f"Some of them ({shown})", ("source", "where", "reason", "message"), rows, "texts")
    return page.section("What failed", summary, some)


def _files(counts: Counts) -> list[Bar]:
    return _bars(
        counts.sources,
        [
            ("listed", counts.sources),
            ("read", counts.read),
            ("unchanged, not opened", counts.unchanged),
            ("failed", counts.sources_failed),
        ],
    )


def _documents(counts: Counts) -> list[Bar]:
    rows = [
        ("produced", counts.documents),
        ("failed", counts.failed),
        *((f"filtered: {rule}", number) for rule, number in sorted(counts.filtered.items())),
        ("duplicates", counts.duplicates),
        ("without text", counts.empty),
        ("indexed", counts.indexed),
    ]
    notes = {
        "produced": f"{counts.kept:,} kept from before" if counts.kept else "",
        "indexed": f"{counts.chunks:,} chunks",
    }
    return _bars(counts.documents, rows, notes)


def _bars(total: int, rows: Sequence[tuple[str, int]], notes: Mapping[str, str] | None = None) -> list[Bar]:
    told = notes or {}
    bars = []
    for place, (name, number) in enumerate(rows):
        share = _share(number, total) if place and number else ""
        note = "; ".join(part for part in (share, told.get(name, "")) if part)
        bars.append(Bar(name, number, f"{number:,}", note))
    return bars


def _share(number: int, total: int) -> str:
    return f"{number / total:.1%}" if number >= total / 2000 else "less than 0.1%"


def _examples(title: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    return page.folded(f"{title}: some of them", page.words("\n".join(lines)))
