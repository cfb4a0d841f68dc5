"""The benchmark of training on a GPU, as far as a machine without one can tell: it refuses, and it runs in small."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).parent / "bench"
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it where Ray cannot be imported."""
    (folder / "ray.py").write_text("raise ImportError('there is no Ray here')")
    command = [sys.executable, str(BENCH / "training_gpu.py"), *arguments]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True, timeout=280
    )


@without_gpu
def test_without_a_gpu_it_refuses_in_one_line(tmp_path: Path) -> None:
    ended = run(tmp_path, "--output", "found.json")
    assert ended.returncode == 2
    assert ended.stderr == "error: torch finds no GPU here; run it where there is one, or try it out with --smoke\n"
    assert not (tmp_path / "found.json").exists()


def test_flops_are_those_of_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(BENCH), *sys.path])
    import training_gpu_runs as runs

    assert runs.flops_of_a_token(10, None) == 60
    assert runs.flops_of_a_token(10, 2) == 52
    network = torch.nn.Sequential(torch.nn.Embedding(7, 4), torch.nn.Linear(4, 3), torch.nn.LayerNorm(3))
    network.add_module("lora_A", torch.nn.Linear(4, 2))
    assert runs.weights_in_products(network) == 12


@pytest.mark.slow
def test_in_small_it_measures_every_way_and_writes_what_it_found(tmp_path: Path) -> None:
    small = ("--steps", "2", "--rows", "64", "--length", "32", "--matrix", "64")
    ended = run(tmp_path, "--smoke", "--attention", "eager", "--output", "found.json", *small)
    assert ended.returncode == 0, ended.stderr
    (table,) = json.loads((tmp_path / "found.json").read_text())["training_gpu"]["tables"]
    ways = [tuple(row[:4]) for row in table["rows"]]
    assert ways == [
        (weights, rows, "eager", 2) for weights in ("full", "LoRA") for rows in ("dense", "packed", "padded")
    ]
    assert all(not row[4].startswith(("0", "nan")) for row in table["rows"])
    assert "## Training on a GPU" in (tmp_path / "found.md").read_text()
