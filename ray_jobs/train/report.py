"""The report of a run: one page that needs nothing else, made from what the run has left in the store.

Guaranteed: every text is escaped; what is missing is left out or said to be missing; the page is written anew whenever
the same command is run again; of a run that has stopped it tells what its last checkpoint knows. Not guaranteed:
restarts of workers that were lost before their first step.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import yaml

from ray_jobs.reporting import html_page as page
from ray_jobs.reporting.charts import Interval, Series, interval_chart, line_chart
from ray_jobs.reporting.drawing import short, signed
from ray_jobs.storage import Storage
from ray_jobs.train.checkpoints import Checkpoint, of_validation
from ray_jobs.train.evaluation.scores import METRICS
from ray_jobs.train.methods import tally
from ray_jobs.train.plan import Plan
from ray_jobs.train.record import ATTEMPTS, SECONDS

REPORT = "report.html"
_METRIC_NAMES = {
    "perplexity": "perplexity",
    "token_kl": "token KL from before",
    "unwanted_ppl": "perplexity of unwanted answers",
    "reward_accuracy": "chosen answer likelier",
    "ndcg@10": "nDCG@10",
    "f1": "F1",
    "exact_match": "exact match",
}
Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Left:
    """What a run has left for its report; None where there is no such file."""

    outcome: dict[str, Any]
    evaluation: dict[str, Any] | None
    samples: list[dict[str, str]]
    data: dict[str, Any] | None
    attempts: list[dict[str, Any]]


def write(plan: Plan, storage: Storage, checkpoint: Checkpoint, stopped: str | None = None) -> str:
    """Write the report of a run; returns its key.

    `checkpoint` is its best one; of a run that has stopped before its end its last one, and `stopped` says why.
    """
    key = f"{plan.run}/{REPORT}"
    text = render(plan, checkpoint, left_by(plan, storage, checkpoint), stopped)
    storage.delete(key)
    storage.create(key, text.encode())
    return key


def left_by(plan: Plan, storage: Storage, checkpoint: Checkpoint) -> Left:
    """Read what the run has left; where it is not finished, what `checkpoint` knows of it."""

    def read(key: str) -> Any:
        return json.loads(storage.read(key)) if storage.exists(key) else None

    attempts = [read(item.key) for item in storage.list(f"{plan.run}/{ATTEMPTS}")]
    return Left(
        outcome=read(plan.finished) or _so_far(read(f"{checkpoint.key}/trainer_state.json")),
        evaluation=read(f"{plan.run}/evaluation.json"),
        samples=read(f"{plan.run}/samples.json") or [],
        data=None if plan.train.startswith("/") else read(plan.train.removesuffix("train.parquet") + "card.json"),
        attempts=sorted(attempts, key=lambda found: (found["began"], found["step"])),
    )


def _so_far(state: Mapping[str, Any]) -> dict[str, Any]:
    """As finished.json, from the trainer's state in a checkpoint."""
    return {"steps": state["global_step"], "history": state["log_history"], "checkpoint_seconds": []}


def render(plan: Plan, checkpoint: Checkpoint, left: Left, stopped: str | None = None) -> str:
    """The page."""
    config = plan.config
    history: list[Entry] = left.outcome["history"]
    going_on = f"This run is not finished: {stopped}. The same command goes on with it."
    parts = [
        "" if stopped is None else page.paragraph(going_on),
        page.facts(
            [
                ("method", config.method + (f", LoRA of rank {config.lora.rank}" if config.lora else ", all weights")),
                ("base", config.base),
                ("steps", f"{left.outcome['steps']:,}"),
                ("best at step" if stopped is None else "last checkpoint at step", f"{checkpoint.step:,}"),
                *(
                    (f"validation {name.replace('_', ' ')}", short(value))
                    for name, value in of_validation(checkpoint.metrics).items()
                ),
            ]
        ),
        _changes(left, config.evaluation.wanted),
        page.section("Training", *_curves(history)),
        _throughput(plan, left),
        _samples(left.samples),
        _made_from(plan, left),
        page.section(
            "Configuration", page.folded("All settings", _yaml(config.model_dump(mode="json", exclude_none=True)))
        ),
    ]
    return page.document(config.name, "\n".join(part for part in parts if part))


def _changes(left: Left, wanted: bool) -> str:
    """Target beside retained, metric by metric, and the table."""
    if left.evaluation is None:
        why = "that is the last step of a run" if wanted else "evaluation was not asked for"
        return page.section("Before and after", page.paragraph(f"Nothing was measured: {why}."))
    rows: list[dict[str, Any]] = left.evaluation["rows"]
    skipped = [page.paragraph(f"{one['set']}: not measured; {one['reason']}.") for one in left.evaluation["skipped"]]
    charts = []
    for metric in dict.fromkeys(row["metric"] for row in rows):
        own = [row for row in rows if row["metric"] == metric]
        better = "lower" if METRICS.get(metric) == "min" else "higher"
        intervals = [
            Interval(f"{row['role']}: {row['set']}", row["delta"], row["low"], row["high"], _verdict(row))
            for row in own
        ]
        name = _METRIC_NAMES.get(metric, metric)
        charts.append(
            interval_chart(f"Change of {name}", intervals, x=f"after less before; {better} is better, 95 % intervals")
        )
    table = page.table(
        "Base and best checkpoint on the same rows",
        ("set", "role", "metric", "before", "after", "change", "95 % interval", "rows"),
        [
            (
                row["set"],
                row["role"],
                _METRIC_NAMES.get(row["metric"], row["metric"]),
                short(row["before"]),
                short(row["after"]),
                signed(row["delta"]),
                f"{signed(row['low'])} to {signed(row['high'])}",
                f"{row['rows']:,}",
            )
            for row in rows
        ],
    )
    return page.section("Before and after", *charts, table if rows else "", *skipped)


def _verdict(row: Entry) -> str:
    """What an interval says, in words."""
    if row["metric"] == "token_kl":
        return "distance from before"
    if row["low"] <= 0 <= row["high"]:
        return "no clear change"
    better = (row["delta"] < 0) == (METRICS.get(row["metric"]) == "min")
    return "better" if better else "forgotten" if row["role"] == "retained" else "worse"


def _curves(history: Sequence[Entry]) -> list[str]:
    def line(name: str, key: str) -> Series:
        found = {float(entry["step"]): float(entry[key]) for entry in history if key in entry}
        return Series(name, list(found), list(found.values()))

    loss = line_chart("Loss", [line("training", "loss"), line("validation", "eval_loss")], x="step", y="loss")
    rate = line_chart("Learning rate", [line("rate", "learning_rate")], x="step", y="learning rate")
    metrics = dict.fromkeys(key for entry in history for key in entry if key in ("eval_f1", "eval_exact_match"))
    lines = [line(key.removeprefix("eval_").replace("_", " "), key) for key in metrics]
    return [loss, rate, *([line_chart("Validation", lines, x="step", y="share")] if lines else [])]


def speeds(history: Sequence[Entry], global_batch: int, resumed: Collection[int] = ()) -> tuple[Series, str]:
    """How fast the run went between two entries of its log, without pauses, and in what it is counted.

    `resumed` has the steps that attempts went on from: their clocks began anew there, and between an entry before and
    one after nothing is known.
    """
    logged = [entry for entry in history if "loss" in entry and SECONDS in entry]
    counts = [name for name in ("tokens", "num_tokens") if logged and all(name in entry for entry in logged)]
    steps, values = [], []
    for before, after in itertools.pairwise(logged):
        seconds = after[SECONDS] - before[SECONDS]
        is_another = any(before["step"] <= step < after["step"] for step in resumed)
        if is_another or seconds <= 0:  # a log without attempts shows only some of them, by a clock that fell behind
            continue
        rows = (after["step"] - before["step"]) * global_batch
        done = after[counts[0]] - before[counts[0]] if counts else rows
        steps.append(float(after["step"]))
        values.append(done / seconds)
    unit = "tokens a second" if counts else "rows a second"
    return Series(unit, steps, values), unit


def _throughput(plan: Plan, left: Left) -> str:
    begun_at = {attempt["step"] for attempt in left.attempts}
    found, unit = speeds(left.outcome["history"], plan.config.optimisation.global_batch, begun_at)
    pauses: list[float] = left.outcome["checkpoint_seconds"]
    facts = []
    if found.ys:
        facts.append((f"{unit}, median", f"{sorted(found.ys)[len(found.ys) // 2]:,.1f}"))
    if pauses:
        facts.append(("pause for a checkpoint, mean", f"{sum(pauses) / len(pauses):.2f} s, of {len(pauses)}"))
    if left.attempts:
        last = left.attempts[-1]
        facts.append(("workers", f"{last['workers']} x {last['device']}"))
        resumed = ", ".join(f"{one['step']:,}" for one in left.attempts[1:])
        facts.append(("restarts", f"{len(left.attempts) - 1}" + (f", from step {resumed}" if resumed else "")))
    facts.append(("precision", plan.precision))
    return page.section("Throughput", page.facts(facts), line_chart("Speed", [found], x="step", y=unit))


def _samples(samples: Sequence[Mapping[str, str]]) -> str:
    if not samples:
        return ""
    blocks = []
    for number, sample in enumerate(samples, 1):
        expected = f"<h3>Expected</h3>{page.words(sample['expected'])}" if sample["expected"] else ""
        pair = "".join(
            f"<div><h3>{title}</h3>{page.words(sample[name]) if sample[name] else '<small>nothing</small>'}</div>"
            for title, name in (("Before", "before"), ("After", "after"))
        )
        blocks.append(
            f'<article class="sample" aria-label="Sample {number}"><h3>Asked</h3>{page.words(sample["prompt"])}'
            f'{expected}<div class="pair">{pair}</div></article>'
        )
    return page.section("Samples", *blocks)


def _made_from(plan: Plan, left: Left) -> str:
    config = plan.config
    facts = [
        ("base", f"{config.base}, revision {plan.base_revision}"),
        ("data", f"{config.data}, hash {plan.data_hash}"),
    ]
    if config.replay is not None:
        facts.append(("replay", f"{config.replay.share:.0%} of the rows from {config.replay.data}, {plan.replay_hash}"))
    parts = [page.facts(facts), *(page.paragraph(f"Rows of {line}.") for line in tally.lines(left.outcome))]
    if left.data is not None:
        rows = []
        for name, split in left.data["splits"].items():
            whole = split["lengths"].get("whole") or {}
            total = f"{whole['total']:,}" if "total" in whole else ""
            rows.append((name, f"{split['rows']:,}", f"{split['groups']:,}", total))
        parts.append(page.table("Splits", ("split", "rows", "groups", str(left.data["unit"])), rows))
        parts += [page.paragraph(warning) for warning in left.data["warnings"]]
        parts.append(page.folded("Data card", _yaml(left.data)))
    return page.section("Made from", *parts)


def _yaml(value: Any) -> str:
    # A block that scrolls by itself would need a place in the order of the keyboard; these lines wrap.
    return f"<pre>{escape(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))}</pre>"
