"""Bars for reports: amounts beside each other, and what went on when; each a piece of HTML that needs nothing else.

Guaranteed: every text is escaped; each bar is a row with its figure beside it as text, and is said in words for those
who do not see it; it fills the width that it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ray_jobs.reporting.drawing import FIELD, Scale, figure, percent, short, svg, unit

_THINNEST = 0.003  # of the field; less could not be seen


@dataclass(frozen=True, slots=True)
class Bar:
    """An amount of at least 0; `figure` stands beside it as text, and `note` below that."""

    label: str
    value: float
    figure: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` to `end`, with full colour for a `weight` of 1 and less for less."""

    start: float
    end: float
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Row:
    """One row of spans; `figure` stands beside it as text, and `note` below that."""

    label: str
    spans: Sequence[Span]
    figure: str
    note: str = ""


def bar_chart(title: str, bars: Sequence[Bar], *, x: str) -> str:
    """Amounts on one scale from 0, a row each; `x` names what is counted."""
    rows = [Row(bar.label, [Span(0.0, bar.value)] if bar.value > 0 else [], bar.figure, bar.note) for bar in bars]
    return _rows(title, rows, max((bar.value for bar in bars), default=0.0), x, "counted")


def span_chart(title: str, rows: Sequence[Row], *, end: float, x: str) -> str:
    """What went on when, on one scale from 0 to `end`, a row each; `x` names the time."""
    return _rows(title, rows, end, x, "recorded")


def _rows(title: str, rows: Sequence[Row], end: float, x: str, done: str) -> str:
    if not rows:
        return figure(title, f'<p class="none">Nothing was {done}.</p>')
    scale = Scale([0.0, end or 1.0])
    grid = "".join(f'<path class="grid" d="M{unit(scale(t))} 0V{FIELD}"/>' for t in scale.ticks)
    lines = "".join(_line(row, scale, grid) for row in rows)
    ticks = "".join(f'<span class="x" style="left:{percent(scale(t))}">{short(t)}</span>' for t in scale.ticks)
    axis = f'<li class="axis" aria-hidden="true"><span></span><div class="field">{ticks}</div><span></span></li>'
    return figure(title, f'<ol class="intervals bars">{lines}{axis}</ol><p class="unit end">{escape(x)}</p>')


def _line(row: Row, scale: Scale, grid: str) -> str:
    marks = [grid, *(_bar(span, scale) for span in row.spans)]
    said = escape(", ".join(part for part in (f"{row.label}: {row.figure}", row.note) if part))
    note = f" <small>{escape(row.note)}</small>" if row.note else ""
    return (
        f'<li><span class="label">{escape(row.label)}</span>'
        f'<div class="plot" role="img" aria-label="{said}"><div class="field">{svg(marks)}</div></div>'
        f'<span class="note"><b>{escape(row.figure)}</b>{note}</span></li>'
    )


def _bar(span: Span, scale: Scale) -> str:
    weight = f' stroke-opacity="{max(0.08, min(1.0, span.weight)):.2f}"' if span.weight < 1 else ""
    start, end = scale(span.start), scale(span.end)
    if end - start < _THINNEST:
        start, end = min(start, 1 - _THINNEST), max(end, min(1.0, start + _THINNEST))
    return f'<path class="bar"{weight} d="M{unit(start)} 500H{unit(end)}"/>'
