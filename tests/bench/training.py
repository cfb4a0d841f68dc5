"""How fast does `tandem train` learn, and what does it cost to run on Ray?

Rates are the trainers' own (seconds of the training loop, without start-up), in interleaved pairs with what a user
would run instead: the plain trainers of TRL and sentence-transformers in one process. Everything runs on the CPUs of
this machine; Tandem's worker and the plain process have the same threads. Not measured: GPUs, several machines.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import training_material as material
from table import Cell, Table, told
from training_peers import PlainRun

from ray_jobs.models.resolve import resolve
from ray_jobs.runtime import session
from ray_jobs.storage import open_storage
from ray_jobs.train import job
from ray_jobs.train.config import TrainConfig

EMBEDDER = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    pairs: int
    steps: int
    rounds: int  # of the ways to fill a batch, and of one and two workers


FULL = Size(pairs=7, steps=40, rounds=3)
QUICK = Size(pairs=1, steps=4, rounds=1)


@dataclass(frozen=True)
class Rate:
    """One run."""

    seconds: float  # of the training loop
    tokens: float
    whole: float  # seconds of the whole command


class Bench:
    """One store, and a new name for every run."""

    def __init__(self, folder: Path, size: Size) -> None:
        self.size = size
        self.store = folder / "store"
        self.language = str(material.language_model(folder / "base"))
        self.embedder = str(resolve(EMBEDDER).path)
        self.short = str(material.short_rows(folder / "short", 4_000))
        self.dense = str(material.dense_rows(folder / "dense", Path(self.language), 640))
        self.pairs = str(material.question_pairs(folder / "pairs", 4_000))
        self.cpus = os.cpu_count() or 1
        self._runs = 0

    def config(self, method: str, base: str, data: str, **changes: Any) -> TrainConfig:
        """A run over all CPUs by one worker; `changes` are merged into its nested keys."""
        self._runs += 1
        chosen: dict[str, Any] = {
            "method": method,
            "base": base,
            "data": data,
            "store": str(self.store),
            "name": f"run-{self._runs}",
            "workers": {"count": 1, "cpus_per_worker": self.cpus},
            "optimisation": {
                "global_batch": 16,
                "micro_batch": 8,
                "max_steps": self.size.steps,
                "learning_rate": 1e-4,
                "warmup": 0,
            },
            "sequence": {"max_length": material.LENGTH},
            # One checkpoint, at the end, which the rate leaves out.
            "checkpoints": {"every_steps": 10_000, "log_every_steps": 10},
        }
        for key, value in changes.items():
            chosen[key] = {**chosen.get(key, {}), **value} if isinstance(value, dict) else value
        return TrainConfig.model_validate(chosen)

    def outcome(self, config: TrainConfig) -> dict[str, Any]:
        """What a finished run has left."""
        storage = open_storage(config.store)
        found: dict[str, Any] = json.loads(storage.read(job.make_plan(config, storage).finished))
        return found

    def timed(self, config: TrainConfig) -> Rate:
        """Train, and what the trainer says of it, the pause of the last checkpoint and evaluation left out."""
        started = time.perf_counter()
        job.run(config)
        whole = time.perf_counter() - started
        outcome = self.outcome(config)
        history = outcome["history"]
        evaluating = sum(entry.get("eval_runtime", 0.0) for entry in history)
        seconds = history[-1]["train_runtime"] - sum(outcome["checkpoint_seconds"]) - evaluating
        return Rate(seconds, max((entry.get("num_tokens", 0.0) for entry in history), default=0.0), whole)

    def plain(self, config: TrainConfig, by_length: bool = False) -> Rate:
        """The same by the plain trainer."""
        sizes = config.optimisation
        run = PlainRun(
            kind=config.method,
            base=config.base,
            data=config.data,
            steps=sizes.max_steps or 0,
            global_batch=sizes.global_batch,
            micro_batch=sizes.micro_batch,
            max_length=config.sequence.max_length or material.LENGTH,
            bfloat16=job.make_plan(config, open_storage(config.store)).precision == "bfloat16",
            by_length=by_length,
        )
        started = time.perf_counter()
        found = run.measured(self.cpus)
        return Rate(found["seconds"], found["tokens"], time.perf_counter() - started)


def measure(quick: bool) -> list[Table]:
    """Run everything; returns the tables."""
    size = QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as folder, session():
        bench = Bench(Path(folder), size)
        return [told(part(bench)) for part in (_overhead, _filling, _workers, _failure)]


def _overhead(bench: Bench) -> Table:
    kinds: list[tuple[str, str, Callable[[], TrainConfig]]] = [
        (
            "language model (sft), full",
            "TRL's SFTTrainer",
            lambda: bench.config("sft", bench.language, bench.short),
        ),
        (
            "embedder (MiniLM), full",
            "SentenceTransformerTrainer",
            lambda: bench.config("embedder", bench.embedder, bench.pairs, sequence={"max_length": 128}),
        ),
    ]
    rows: list[list[Cell]] = []
    for name, peer, make in kinds:
        pairs = list(_in_pairs(bench, make))
        ratios = [own.seconds / other.seconds - 1 for own, other in pairs]
        starts = [statistics.median(rate.whole - rate.seconds for rate in side) for side in zip(*pairs, strict=True)]
        examples = 16 * bench.size.steps
        own, other = (statistics.median(examples / rate.seconds for rate in side) for side in zip(*pairs, strict=True))
        rows.append(
            [
                name,
                peer,
                f"{own:.1f}",
                f"{other:.1f}",
                f"{statistics.median(ratios):+.1%} ({min(ratios):+.1%} to {max(ratios):+.1%})",
                f"{starts[0]:.0f} / {starts[1]:.0f}",
            ]
        )
    return Table(
        f"Training on Ray against the plain trainer, {bench.size.pairs} interleaved pairs of {bench.size.steps} steps",
        ["", "plain trainer", "rows/s", "plain rows/s", "overhead (least to most)", "start-up s (Tandem / plain)"],
        rows,
        notes=("Same model, rows, batches, threads and precision; the training loop without start-up and checkpoint.",),
    )


def _in_pairs(bench: Bench, make: Callable[[], TrainConfig]) -> Iterator[tuple[Rate, Rate]]:
    """Tandem and the plain trainer by turns, the first of a pair being now the one, now the other."""
    for number in range(bench.size.pairs):
        config = make()
        if number % 2:
            other = bench.plain(config)
            yield bench.timed(config), other
        else:
            own = bench.timed(config)
            yield own, bench.plain(config)


def _filling(bench: Bench) -> Table:
    """How much of a batch is text."""
    few, batch = {"global_batch": 4, "micro_batch": 4}, {"global_batch": 16, "micro_batch": 16}
    ways: list[tuple[str, Callable[[], Rate]]] = [
        (
            "fully dense rows",
            lambda: bench.timed(bench.config("sft", bench.language, bench.dense, optimisation=few)),
        ),
        (
            "packed",
            lambda: bench.timed(
                bench.config("sft", bench.language, bench.short, optimisation=few, sequence={"packing": True})
            ),
        ),
        ("padded", lambda: bench.timed(bench.config("sft", bench.language, bench.short, optimisation=batch))),
        (
            "length-grouped (TRL)",
            lambda: bench.plain(bench.config("sft", bench.language, bench.short, optimisation=batch), by_length=True),
        ),
    ]
    rates: dict[str, list[float]] = {}
    for turn in range(bench.size.rounds):
        for name, run in ways[turn % len(ways) :] + ways[: turn % len(ways)]:
            rate = run()
            rates.setdefault(name, []).append(rate.tokens / rate.seconds)
    dense = rates[ways[0][0]]
    rows: list[list[Cell]] = [
        [
            name,
            f"{statistics.median(rates[name]):,.0f}",
            _spread([rate / limit for rate, limit in zip(rates[name], dense, strict=True)]),
        ]
        for name, _ in ways
    ]
    return Table(
        f"Tokens of text a second, rows of {material.LENGTH} tokens at most",
        ["batches", "tokens/s", "share of dense (least to most)"],
        rows,
        notes=("Tokens that are padding do not count. Instructions as people wrote them; 7 million random weights.",),
    )


def _workers(bench: Bench) -> Table:
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(bench.size.rounds):
        for count in (1, 2) if turn % 2 else (2, 1):
            workers = {"count": count, "cpus_per_worker": 1}
            config = bench.config("sft", bench.language, bench.dense, workers=workers, optimisation={"micro_batch": 4})
            seconds[count].append(bench.timed(config).seconds)
    ratios = [one / two for one, two in zip(seconds[1], seconds[2], strict=True)]
    return Table(
        "Two workers instead of one, each with one CPU",
        ["workers", "seconds", "faster by (least to most)"],
        [
            [1, f"{statistics.median(seconds[1]):.1f}", ""],
            [2, f"{statistics.median(seconds[2]):.1f}", _spread(ratios)],
        ],
        notes=(f"Same global batch, {bench.size.steps} steps, DDP over gloo.",),
    )


def _failure(bench: Bench) -> Table:
    """What a checkpoint costs, and a lost worker."""
    often = max(2, bench.size.steps // 8)
    kinds: tuple[tuple[str, dict[str, Any]], ...] = (
        ("full, DDP", {}),
        ("full, ZeRO 2", {"zero": {"stage": 2}}),
        ("LoRA, DDP", {"lora": {"rank": 16}}),
    )
    rows: list[list[Cell]] = []
    for name, changes in kinds:
        common: dict[str, Any] = {
            "workers": {"count": 2, "cpus_per_worker": 1},
            "optimisation": {"micro_batch": 4},
            "checkpoints": {"every_steps": often},
            **changes,
        }
        whole = bench.config("sft", bench.language, bench.dense, **common)
        rate = bench.timed(whole)
        pauses = bench.outcome(whole)["checkpoint_seconds"]
        lost, watch = bench.config("sft", bench.language, bench.dense, **common), Watch()
        with killed_once(watch, often * 3):
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
        worker = _workers_of_train()[-1]
        watch.killed = time.monotonic()
        worker.send_signal(signal.SIGKILL)

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _workers_of_train() -> list[psutil.Process]:
    named = [process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"]]
    return [process for process in named if "RayTrainWorker" in process.info["cmdline"][0]]


def _spread(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
