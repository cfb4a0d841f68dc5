"""How much of a batch is text: packed rows beside fully dense, padded and length-grouped ones.

Rates are the trainers' own, by turns, on the CPUs of this machine. Not measured: kernels for rows of different lengths,
which need a GPU (training_gpu.py).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import training_material as material
from table import Cell, Table
from training import Bench, Rate, Size, spread, tables

FULL = Size(pairs=0, short_pairs=0, steps=20, rounds=5)
QUICK = Size(pairs=0, short_pairs=0, steps=4, rounds=1)


def measure(quick: bool) -> list[Table]:
    """Run everything; returns the tables."""
    return tables(QUICK if quick else FULL, _filling)


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
            spread([rate / limit for rate, limit in zip(rates[name], dense, strict=True)]),
        ]
        for name, _ in ways
    ]
    return Table(
        f"Tokens of text a second, rows of {material.LENGTH} tokens at most",
        ["batches", "tokens/s", "share of dense (least to most)"],
        rows,
        notes=("Tokens that are padding do not count. Instructions as people wrote them; 7 million random weights.",),
    )
