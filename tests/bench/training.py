"""How fast does `tandem train` learn, and what does it cost to run on Ray?

Rates are the trainers' own (seconds of the training loop, without start-up), in interleaved pairs with what a user
would run instead: the plain trainers of TRL and sentence-transformers in one process. Everything runs on the CPUs of
this machine; Tandem's worker and the plain process have the same threads. Not measured: GPUs, several machines;
how full batches are is training_batches.py's, what several workers gain, and what a lost one costs,
training_workers.py's.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

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
    short_pairs: int  # of runs whose steps are short: what else the machine does weighs more there
    steps: int
    rounds: int  # of what is measured by turns


FULL = Size(pairs=5, short_pairs=15, steps=20, rounds=0)
QUICK = Size(pairs=1, short_pairs=1, steps=4, rounds=0)


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
            "checkpoints": {"every_steps": 10_000, "log_every_steps": min(10, self.size.steps)},
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
        """Train, and what its history says of it: the last step is logged before it is evaluated and saved."""
        started = time.perf_counter()
        job.run(config)
        whole = time.perf_counter() - started
        history = self.outcome(config)["history"]
        last = [entry for entry in history if "loss" in entry][-1]
        return Rate(last["seconds"], max((entry.get("num_tokens", 0.0) for entry in history), default=0.0), whole)

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
        found = run.measured(int(config.workers.cpus_per_worker))
        return Rate(found["seconds"], found["tokens"], time.perf_counter() - started)


def measure(quick: bool) -> list[Table]:
    """Run everything; returns the tables."""
    return tables(QUICK if quick else FULL, _overhead)


def tables(size: Size, *parts: Callable[[Bench], Table]) -> list[Table]:
    """What the parts have measured, told as it comes; all on one cluster of Ray."""
    with tempfile.TemporaryDirectory() as folder, session():
        bench = Bench(Path(folder), size)
        return [told(part(bench)) for part in parts]


def _overhead(bench: Bench) -> Table:
    kinds: list[tuple[str, str, int, Callable[..., TrainConfig]]] = [
        (
            "language model (sft)",
            "TRL's SFTTrainer",
            bench.size.pairs,
            partial(bench.config, "sft", bench.language, bench.short),
        ),
        (
            "embedder (MiniLM)",
            "SentenceTransformerTrainer",
            bench.size.short_pairs,
            partial(bench.config, "embedder", bench.embedder, bench.pairs, sequence={"max_length": 128}),
        ),
    ]
    shares = dict.fromkeys((bench.cpus, max(1, bench.cpus - 1)))
    rows: list[list[Cell]] = []
    for (name, peer, count, make), cpus in product(kinds, shares):
        pairs = list(_in_pairs(bench, count, partial(make, workers={"count": 1, "cpus_per_worker": cpus})))
        ratios = [own.seconds / other.seconds - 1 for own, other in pairs]
        starts = [statistics.median(rate.whole - rate.seconds for rate in side) for side in zip(*pairs, strict=True)]
        examples = 16 * bench.size.steps
        own, other = (statistics.median(examples / rate.seconds for rate in side) for side in zip(*pairs, strict=True))
        rows.append(
            [
                f"{name}, full, {cpus} of {bench.cpus} CPUs",
                peer,
                str(count),
                f"{own:.1f}",
                f"{other:.1f}",
                f"{statistics.median(ratios):+.1%} ({min(ratios):+.1%} to {max(ratios):+.1%})",
                f"{starts[0]:.0f} / {starts[1]:.0f}",
            ]
        )
    return Table(
        f"Training on Ray against the plain trainer, interleaved pairs of runs of {bench.size.steps} steps",
        [
            "",
            "plain trainer",
            "pairs",
            "rows/s",
            "plain rows/s",
            "overhead (least to most)",
            "start-up s (Tandem / plain)",
        ],
        rows,
        notes=(
            "Same model, rows, batches, threads and precision; from the begin of training to the end of its last step.",
            "Ray's own processes need a part of a CPU: where the worker has them all, they are in its way.",
        ),
    )


def _in_pairs(bench: Bench, count: int, make: Callable[[], TrainConfig]) -> Iterator[tuple[Rate, Rate]]:
    """Tandem and the plain trainer by turns, the first of a pair being now the one, now the other."""
    for number in range(count):
        config = make()
        if number % 2:
            other = bench.plain(config)
            yield bench.timed(config), other
        else:
            own = bench.timed(config)
            yield own, bench.plain(config)


def spread(ratios: Sequence[float]) -> str:
    """The median, least and most."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
