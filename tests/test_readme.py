"""The README says what is there: its commands, its targets, its files, its figures."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from cluster.cli import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "tests" / "bench"), *sys.path])


def test_every_command_named_exists_and_every_command_is_named() -> None:
    assert set(re.findall(r"tandem (\w+)", README)) == set(COMMANDS)


def test_every_target_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z]+)(?= |`|$)", README)) <= targets


def test_every_file_named_exists() -> None:
    named = re.findall(r"\]\(([\w./-]+)\)", README) + re.findall(r"`((?:ray_jobs|cluster|tests)/[\w/.]+)`", README)
    assert named
    for name in named:
        assert "NAME" in name or (ROOT / name).exists(), name


@pytest.mark.usefixtures("bench")
def test_the_figures_are_those_of_the_last_benchmark() -> None:
    from readme import BEGIN, END, summary

    shown = README.split(BEGIN)[1].split(END)[0].strip()
    assert shown == summary(json.loads((ROOT / "tests" / "bench" / "results.json").read_text(encoding="utf-8")))
