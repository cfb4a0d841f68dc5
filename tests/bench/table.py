"""What the benchmarks found, as Markdown for people and JSON for machines.

Guaranteed: both say the same; a section carries the commit, time, machine and versions it was measured with.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

Cell = str | float | int
PACKAGES = (
    "torch",
    "sentence-transformers",
    "openvino",
    "faiss-cpu",
    "ray",
    "langchain-community",
    "langchain-huggingface",
    "llama-index-core",
    "hnswlib",
    "usearch",
    "lancedb",
    "fastapi",
    "haystack-ai",
    "hayhooks",
    "transformers",
    "trl",
    "deepspeed",
    "peft",
    "flash-attn",
)
TITLES = {
    "ingest": "Ingest",
    "ingest_pipelines": "Pipelines",
    "ingest_growth": "Ingest of growing corpora",
    "ingest_once": "Exactly once",
    "ingest_forecast": "Forecasts of ingests",
    "search": "Search",
    "index_ladder": "The ladder of index types",
    "quality": "Quality",
    "serving": "Serving",
    "training": "Training",
    "training_batches": "Batches of a training run",
    "training_workers": "Workers of a training run",
    "trained": "Trained models",
    "embedder": "A fine-tuned embedder",
    "training_gpu": "Training on a GPU",
}
ELSEWHERE = ("training_gpu",)
"""Measured by themselves, on machines of another kind than `run.py`'s."""


@dataclass(frozen=True)
class Table:
    """One table: a title, columns, rows of text or numbers, and notes below it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    """What one benchmark found."""

    name: str
    tables: Sequence[Table]
    commit: str = ""
    measured: str = ""  # ISO 8601, UTC
    machine: str = ""
    versions: dict[str, str] = field(default_factory=dict)


def stamped(name: str, tables: Sequence[Table]) -> Section:
    """A section with what it was measured on."""
    return Section(
        name,
        tables,
        commit=_commit(),
        measured=datetime.now(UTC).isoformat(timespec="minutes"),
        machine=_machine(),
        versions=_versions(),
    )


def update(sections: Sequence[Section], folder: Path, stem: str) -> Path:
    """Put `sections` in the place of those of the same name in STEM.json, and write STEM.md from the whole."""
    path = folder / f"{stem}.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known |= {section.name: asdict(section) for section in sections}
    ordered = {name: known[name] for name in TITLES if name in known}
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    markdown = folder / f"{stem}.md"
    markdown.write_text("\n".join(_section(item) for item in ordered.values()), encoding="utf-8")
    return markdown


def _section(section: dict[str, object]) -> str:
    tables = section["tables"]
    assert isinstance(tables, list)
    versions = section["versions"]
    assert isinstance(versions, dict)
    listed = ", ".join(f"{name} {number}" for name, number in versions.items())
    lines = [f"## {TITLES[str(section['name'])]}", ""]
    for table in tables:
        lines += [markdown(Table(**table)), ""]
    lines += [f"Measured {section['measured']} at commit {section['commit']} on {section['machine']}; {listed}.", ""]
    return "\n".join(lines)


def told(table: Table) -> Table:
    """Show a table as soon as it is measured, since the next one takes a while; returns it."""
    print(markdown(table), file=sys.stderr, flush=True)
    return table


def markdown(table: Table) -> str:
    """One table as Markdown, numbers to the right."""
    numeric = [
        bool(table.rows) and all(not isinstance(row[place], str) or _is_figure(str(row[place])) for row in table.rows)
        for place in range(len(table.columns))
    ]
    lines = [f"**{table.title}**", "", "| " + " | ".join(table.columns) + " |"]
    lines.append("|" + "|".join("---:" if right else "---" for right in numeric) + "|")
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in table.rows]
    if table.notes:
        lines += ["", *(f"- {note}" for note in table.notes)]
    return "\n".join(lines)


def _is_figure(text: str) -> bool:
    return not text or text[0].isdigit() or text[0] in "-–"


def _cell(value: Cell) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else value


def _commit() -> str:
    folder = Path(__file__).parent
    if shutil.which("git") is None:
        return "unknown"
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=folder, capture_output=True, text=True)
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", "../../ray_jobs"], cwd=folder, capture_output=True, text=True
    )
    return (head.stdout.strip() or "unknown") + ("+changes" if changed.stdout.strip() else "")


def _machine() -> str:
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    kinds = [name for name in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if name in flags]
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cpus} CPUs ({platform.machine()}{', ' + kinds[0] if kinds else ''}), Python {platform.python_version()}"


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
