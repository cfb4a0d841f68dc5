"""The page of a search: one file that needs no other, with the table and what it looks like.

Guaranteed: every trial that has ended is in the table with all that was searched; what the charts show is also said in
words. Not guaranteed: a line for trials without a value; they are in the table alone.
"""

from __future__ import annotations

from typing import Any

from ray_jobs.reporting import html_page
from ray_jobs.reporting.charts import Series, line_chart
from ray_jobs.reporting.drawing import short
from ray_jobs.reporting.parallel import Axis, parallel_chart
from ray_jobs.train.tune.summary import Row, TuneSummary, shown


def page(summary: TuneSummary) -> str:
    """The whole page as HTML."""
    parts = [
        _facts(summary),
        html_page.section("Best so far", _best_so_far(summary)),
        html_page.section("What was tried", _parallel(summary)),
        _importance(summary),
        html_page.section("Trials", html_page.table("The best first", summary.head(), summary.cells())),
        _failures(summary),
        html_page.section("While they ran", _curves(summary)),
    ]
    return html_page.document(f"Search {summary.name}", "\n".join(parts))


def _facts(summary: TuneSummary) -> str:
    states = [row.state for row in summary.trials]
    found = [("Objective", f"{summary.objective} ({'lowest' if summary.mode == 'min' else 'highest'} is best)")]
    best = next((row for row in summary.trials if row.trial == summary.best), None)
    if best is not None:
        found.append((f"Best, trial {best.trial}", short(best.value or 0.0)))
        found += [(key, shown(value)) for key, value in best.point.items()]
    found += [(state.capitalize(), str(states.count(state))) for state in ("finished", "stopped", "failed")]
    if summary.impossible:
        found.append(("Drawn and impossible", str(summary.impossible)))
    if not summary.complete:
        found.append(("State", "cut short; the same command goes on"))
    train = "" if summary.best_config is None else f"tandem train --config {summary.best_config}"
    return html_page.facts(found) + (html_page.words(train) if train else "")


def _best_so_far(summary: TuneSummary) -> str:
    finished = sorted((row for row in summary.trials if row.state == "finished"), key=lambda row: row.trial)
    better = max if summary.mode == "max" else min
    xs: list[float] = []
    ys: list[float] = []
    for row in finished:
        if row.value is None or not row.within_limit:
            continue
        if ys:
            # A step: between two trials the best is what it was.
            xs.append(float(row.trial))
            ys.append(ys[-1])
        xs.append(float(row.trial))
        ys.append(better(ys[-1], row.value) if ys else row.value)
    return line_chart("Best value by trial", [Series("best so far", xs, ys)], x="trial", y=summary.objective)


def _parallel(summary: TuneSummary) -> str:
    rows = [row for row in summary.trials if row.value is not None]
    axes = [_axis(key, [row.point[key] for row in rows], key in summary.logarithmic) for key in summary.keys]
    axes.append(Axis(summary.objective, [row.value for row in rows]))
    names = [_name(row) for row in rows]
    return parallel_chart("Each line is a trial", axes, names, list(range(len(rows))))


def _axis(key: str, values: list[Any], log: bool) -> Axis:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        wide = bool(values) and min(values) > 0 and max(values) >= 10 * min(values)
        return Axis(f"{key} (log)" if log or wide else key, values, log=log or wide)
    return Axis(key, [shown(value) for value in values])


def _importance(summary: TuneSummary) -> str:
    if not summary.importance:
        return ""
    rows = [(key, f"{share:.0%}") for key, share in summary.importance.items()]
    return html_page.section(
        "What made the difference",
        html_page.table("Share of the differences between trials", ["key", "share"], rows),
    )


def _curves(summary: TuneSummary) -> str:
    """The curves of the best four: more cannot be told apart."""
    chosen = [row for row in summary.trials if row.evaluations][:4]
    lines = [
        Series(
            f"trial {row.trial}",
            [float(entry.step) for entry in row.evaluations],
            [entry.value for entry in row.evaluations],
        )
        for row in chosen
    ]
    return line_chart("Evaluations of the best four", lines, x="step", y=summary.metric)


def _failures(summary: TuneSummary) -> str:
    rows = [(str(row.trial), row.reason) for row in summary.trials if row.state == "failed"]
    if not rows:
        return ""
    return html_page.section("Failures", html_page.table("Why trials failed", ["trial", "reason"], rows))


def _name(row: Row) -> str:
    values = ", ".join(f"{key} {shown(value)}" for key, value in row.point.items())
    return f"trial {row.trial}, {row.state}: {short(row.value or 0.0)}; {values}"
