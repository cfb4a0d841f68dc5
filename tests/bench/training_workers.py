"""What a second worker gains, what a checkpoint costs, and how long a run stands still when a worker is lost.

Everything runs on the CPUs of this machine, one for each worker. Not measured: GPUs, several machines.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil
from table import Cell, Table
from training import Bench, Size, spread, tables

from ray_jobs.train import job

FULL = Size(pairs=0, short_pairs=0, steps=24, rounds=3)
QUICK = Size(pairs=0, short_pairs=0, steps=8, rounds=1)
BATCH = {"global_batch": 4, "micro_batch": 2}
"""Small: what is measured are ratios and pauses, and one CPU takes two seconds for four rows of 512 tokens."""


def measure(quick: bool) -> list[Table]:
    """Run everything; returns the tables."""
    return tables(QUICK if quick else FULL, _workers, _failure)


def _workers(bench: Bench) -> Table:
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(bench.size.rounds):
        for count in (1, 2) if turn % 2 else (2, 1):
            workers = {"count": count, "cpus_per_worker": 1}
            config = bench.config("sft", bench.language, bench.dense, workers=workers, optimisation=BATCH)
            seconds[count].append(bench.timed(config).seconds)
    ratios = [one / two for one, two in zip(seconds[1], seconds[2], strict=True)]
    return Table(
        "Two workers instead of one, each with one CPU",
        ["workers", "seconds", "faster by (least to most)"],
        [
            [1, f"{statistics.median(seconds[1]):.1f}", ""],
            [2, f"{statistics.median(seconds[2]):.1f}", spread(ratios)],
        ],
        notes=(f"Same global batch, {bench.size.steps} steps, DDP over gloo.",),
    )


def _failure(bench: Bench) -> Table:
    """What a checkpoint costs, and a lost worker."""
    often = bench.size.steps // 4
    kinds: tuple[tuple[str, dict[str, Any]], ...] = (
        ("full, DDP", {}),
        ("full, ZeRO 2", {"zero": {"stage": 2}}),
        ("LoRA, DDP", {"lora": {"rank": 16}}),
    )
    rows: list[list[Cell]] = []
    for name, changes in kinds:
        common: dict[str, Any] = {
            "workers": {"count": 2, "cpus_per_worker": 1},
            "optimisation": BATCH,
            "checkpoints": {"every_steps": often},
            **changes,
        }
        whole = bench.config("sft", bench.language, bench.dense, **common)
        rate = bench.timed(whole)
        pauses = bench.outcome(whole)["checkpoint_seconds"]
        lost, watch = bench.config("sft", bench.language, bench.dense, **common), Watch()
        with killed_once(watch, often * 2 + often // 2):
            job.run(lost, watch)
        rows.append(
            [
                name,
                f"{1000 * statistics.median(pauses):.0f}",
                f"{1000 * rate.seconds / bench.size.steps:.0f}",
                f"{watch.recovery():.1f}",
            ]
        )
    return Table(
        "Checkpoints and a lost worker, two workers",
        ["", "pause of a checkpoint, ms", "a step, ms", "from the kill to the first new step, s"],
        rows,
        notes=(
            f"A checkpoint every {often} steps. One worker of two is killed (SIGKILL); the time covers noticing it, "
            "new processes, their imports, the checkpoint, and the steps that are done again.",
        ),
    )


@dataclass
class Watch:
    """A progress that remembers when each step was seen first."""

    steps: float = 0
    killed: float | None = None
    after: list[float] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str, total: float) -> Iterator[Watch]:
        """The only stage that matters is the training."""
        yield self

    def advance(self, done: float, **counted: int) -> None:
        """Count steps, and note the time of those after the kill."""
        self.steps += counted.get("steps", 0)
        if self.killed is not None and counted.get("steps"):
            self.after.append(time.monotonic())

    def skip(self, done: float) -> None:
        """Steps of before do not count."""

    def show(self, **values: float) -> None:
        """The loss does not matter here."""

    def note(self, text: str) -> None:
        """That a worker was lost is known."""

    def recovery(self) -> float:
        """Seconds from the kill to the first step that had not been done before."""
        if self.killed is None or not self.after:
            raise RuntimeError("no worker was killed: the run was over too soon")
        return self.after[0] - self.killed


@contextmanager
def killed_once(watch: Watch, step: int) -> Iterator[None]:
    """Kill one worker once the run has come to `step`."""
    over = threading.Event()

    def wait_and_kill() -> None:
        while watch.steps < step:
            if over.wait(0.05):
                return
        worker = [process for process in psutil.Process().children(recursive=True) if _trains(process)][-1]
        watch.killed = time.monotonic()
        worker.kill()

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _trains(process: psutil.Process) -> bool:
    try:
        return "RayTrainWorker" in " ".join(process.cmdline()[:1])
    except psutil.Error:
        return False
