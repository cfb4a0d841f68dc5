"""Puts the measured tables into the README, so that it shows what results.md says and nothing else."""

from __future__ import annotations

from pathlib import Path

BEGIN, END = "<!-- results -->", "<!-- /results -->"


def show(readme: Path, results: Path) -> None:
    """Replace what stands between the two marks of the README by the tables."""
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}\n{section(results)}\n{END}{after}", encoding="utf-8")


def section(results: Path) -> str:
    """The tables, their titles one level lower than in their own file."""
    return results.read_text(encoding="utf-8").replace("## ", "### ").strip()
