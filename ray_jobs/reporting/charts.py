"""Small charts for reports: lines and intervals, each a piece of HTML that needs nothing else.

Guaranteed: every text is escaped; a chart fills the width it is given, with text of a constant size, so that it can be
read on a phone; what it shows is also said in words for those who do not see it; series differ by dash and by their
place in the key, not by colour alone; values that are no numbers are left out. The colours come from `style`, for light
and dark, which the page around must hold once (`html_page` does). Not guaranteed: that every point of a long series is
drawn; of each stretch its lowest and highest are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ray_jobs.reporting.drawing import FIELD, Doubling, Scale, down, figure, percent, short, signed, svg, swatch, unit

_STRETCHES = 200  # of a line; two points each
_ROWS = 12  # of the table below a line chart
_DASHES = ("", "7 4", "2 3", "9 3 2 3")


@dataclass(frozen=True, slots=True)
class Series:
    """One line: `xs` ascending, `ys` of the same length; the key shows its `note`, without one its last value."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Interval:
    """One row of an interval chart: a value between `low` and `high`; `note` stands beside it as text."""

    label: str
    value: float
    low: float
    high: float
    note: str = ""


def line_chart(
    title: str, series: Sequence[Series], *, x: str, y: str, doubling: bool = False, shown: Sequence[float] = ()
) -> str:
    """Lines over a common x axis; `x` and `y` name what the axes measure. A sentence where there is nothing to draw.

    With `doubling` the x axis doubles from tick to tick, for values above 0. The y axis also holds the values `shown`.
    """
    drawn = [Series(line.name, *_finite(line), line.note) for line in series]
    drawn = [line for line in drawn if line.xs]
    if not drawn:
        return figure(title, '<p class="none">Nothing was recorded.</p>')
    xs = [value for line in drawn for value in line.xs]
    across: Scale = Doubling(xs) if doubling else Scale(xs, whole=all(float(value).is_integer() for value in xs))
    up = Scale([*shown, *(value for line in drawn for value in line.ys)])
    marks = [f'<path class="grid" d="M0 {down(up(t))}H{FIELD}"/>' for t in up.ticks]
    for place, line in enumerate(drawn):
        points = [(unit(across(px)), down(up(py))) for px, py in _thinned(line)]
        path = "M" + "L".join(f"{px} {py}" for px, py in (points if len(points) > 1 else points * 2))
        marks.append(f'<path class="line s{place % 4 + 1}" stroke-dasharray="{_DASHES[place % 4]}" d="{path}"/>')
    labels = [
        *(f'<span class="y" style="top:{percent(1 - up(t))}">{short(t)}</span>' for t in up.ticks),
        *(f'<span class="x" style="left:{percent(across(t))}">{short(t)}</span>' for t in across.ticks),
    ]
    keys = "".join(_key(place, line) for place, line in enumerate(drawn))
    said = "; ".join(
        f"{line.name}: {short(line.ys[0])} at {x} {short(line.xs[0])}, {short(line.ys[-1])} at {x} "
        f"{short(line.xs[-1])}, lowest {short(min(line.ys))}, highest {short(max(line.ys))}"
        for line in drawn
    )
    return figure(
        title,
        f'<ul class="keys">{keys}</ul><p class="unit">{escape(y)}</p>'
        f'<div class="plot" role="img" aria-label="{escape(f"{title}. {y} by {x}. {said}")}">'
        f'<div class="field">{svg(marks)}{"".join(labels)}</div></div><p class="unit end">{escape(x)}</p>'
        + _numbers(drawn, x),
    )


def interval_chart(title: str, intervals: Sequence[Interval], *, x: str) -> str:
    """Values with their intervals on one scale that holds zero, a row each; `x` names what is measured."""
    rows = [row for row in intervals if all(map(math.isfinite, (row.value, row.low, row.high)))]
    if not rows:
        return figure(title, '<p class="none">Nothing was measured.</p>')
    scale = Scale([0.0, *(value for row in rows for value in (row.low, row.high))])
    zero = unit(scale(0.0))
    lines = []
    for row in rows:
        low, value, high = (unit(scale(part)) for part in (row.low, row.value, row.high))
        marks = [
            *(f'<path class="grid" d="M{unit(scale(t))} 0V{FIELD}"/>' for t in scale.ticks),
            f'<path class="zero" d="M{zero} 0V{FIELD}"/>',
            f'<path class="span" d="M{low} 500H{high}M{low} 300V700M{high} 300V700"/>',
            f'<path class="dot" d="M{value} 500h0"/>',
        ]
        said = f"{row.label}: {signed(row.value)}, interval {signed(row.low)} to {signed(row.high)}"
        lines.append(
            f'<li><span class="label">{escape(row.label)}</span>'
            f'<div class="plot" role="img" aria-label="{escape(said)}"><div class="field">{svg(marks)}</div></div>'
            f'<span class="note"><b>{signed(row.value)}</b> <small>{signed(row.low)} to {signed(row.high)}'
            f"{'; ' if row.note else ''}{escape(row.note)}</small></span></li>"
        )
    ticks = "".join(f'<span class="x" style="left:{percent(scale(t))}">{short(t)}</span>' for t in scale.ticks)
    axis = f'<li class="axis" aria-hidden="true"><span></span><div class="field">{ticks}</div><span></span></li>'
    body = f'<ol class="intervals">{"".join(lines)}{axis}</ol><p class="unit end">{escape(x)}</p>'
    return figure(title, body)


def _finite(line: Series) -> tuple[list[float], list[float]]:
    pairs = [pair for pair in zip(line.xs, line.ys, strict=True) if all(map(math.isfinite, pair))]
    return [px for px, _ in pairs], [py for _, py in pairs]


def _thinned(line: Series) -> list[tuple[float, float]]:
    """The points of a line, of a long one the lowest and highest of each stretch."""
    points = list(zip(line.xs, line.ys, strict=True))
    if len(points) <= 2 * _STRETCHES:
        return points
    found = [points[0]]
    for number in range(_STRETCHES):
        stretch = points[number * len(points) // _STRETCHES : (number + 1) * len(points) // _STRETCHES]
        found += sorted({min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])})
    return [*found, points[-1]]


def _numbers(drawn: Sequence[Series], x: str) -> str:
    """The lines as a table, of a long one some rows."""
    columns = [dict(zip(line.xs, line.ys, strict=True)) for line in drawn]
    steps = sorted({value for line in drawn for value in line.xs})
    if len(steps) > _ROWS:
        steps = [steps[round(row * (len(steps) - 1) / (_ROWS - 1))] for row in range(_ROWS)]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in (x, *(line.name for line in drawn)))
    rows = "".join(
        f'<tr><th scope="row">{short(step)}</th>'
        + "".join(f"<td>{short(column[step]) if step in column else ''}</td>" for column in columns)
        + "</tr>"
        for step in steps
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<details><summary>Figures</summary>{table}</details>"


def _key(place: int, line: Series) -> str:
    sign = swatch(f"line s{place % 4 + 1}", _DASHES[place % 4])
    return f"<li>{sign}{escape(line.name)} <b>{short(line.ys[-1]) if line.note is None else escape(line.note)}</b></li>"
