"""The README says what is there: its commands, its targets, its files, its figures."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from cluster.cli import COMMANDS
from ray_jobs.train import sharing
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.methods import METHODS

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


@pytest.mark.parametrize("method", METHODS)
def test_the_example_of_fine_tuning_is_taken_for_every_method_and_all_workers_that_it_names(method: str) -> None:
    [block] = [text for text in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL) if text.startswith("# sft.yaml")]
    given = {**yaml.safe_load(block), "method": method}
    others = re.search(r"workers: .*# or (\{.*?\}): ([\d, ]+) or (\d+), which share 64 rows", block)
    assert others is not None
    if method != "sft":
        given["sequence"] = {}
    config = TrainConfig.model_validate(given)
    assert config.optimisation.global_batch == 64
    if method == "kto":
        return
    elastic = TrainConfig.model_validate({**given, "workers": yaml.safe_load(others[1])})
    assert sharing.counts(elastic) == [int(count) for count in [*others[2].split(","), others[3]]]
