"""Small charts for reports: lines, intervals, parallel coordinates, each a piece of HTML that needs nothing else.

Guaranteed: every text is escaped; a chart fills the width it is given, with text of a constant size, so that it can be
read on a phone; what it shows is also said in words for those who do not see it; series differ by dash and by their
place in the key, not by colour alone; values that are no numbers are left out. The colours come from `STYLE`, for light
and dark, which the page around must hold once (ray_jobs.train.html_page does). Not guaranteed: that every point of a
long series is drawn; of each stretch its lowest and highest are.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

_FIELD = 1000  # units of a drawing, in both directions
_STRETCHES = 200  # of a line; two points each
_FLAT = 1e-9  # a line that varies less, as a share of its size, is level
_TINY = 1e-200
_ROWS = 12  # of the table below a line chart
_DASHES = ("", "7 4", "2 3", "9 3 2 3")


@dataclass(frozen=True, slots=True)
class Series:
    """One line: `xs` ascending, `ys` of the same length."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]


@dataclass(frozen=True, slots=True)
class Interval:
    """One row of an interval chart: a value between `low` and `high`; `note` stands beside it as text."""

    label: str
    value: float
    low: float
    high: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of parallel coordinates: one value a line; numbers, or names where they are no numbers."""

    name: str
    values: Sequence[float | str | None]
    log: bool = False


def line_chart(title: str, series: Sequence[Series], *, x: str, y: str) -> str:
    """Lines over a common x axis; `x` and `y` name what the axes measure. A sentence where there is nothing to draw."""
    drawn = [Series(line.name, *_finite(line)) for line in series]
    drawn = [line for line in drawn if line.xs]
    if not drawn:
        return _figure(title, '<p class="none">Nothing was recorded.</p>')
    xs = [value for line in drawn for value in line.xs]
    across = _Scale(xs, whole=all(float(value).is_integer() for value in xs))
    up = _Scale([value for line in drawn for value in line.ys])
    marks = [f'<path class="grid" d="M0 {_down(up(t))}H{_FIELD}"/>' for t in up.ticks]
    for place, line in enumerate(drawn):
        points = [(_unit(across(px)), _down(up(py))) for px, py in _thinned(line)]
        path = "M" + "L".join(f"{px} {py}" for px, py in (points if len(points) > 1 else points * 2))
        marks.append(f'<path class="line s{place % 4 + 1}" stroke-dasharray="{_DASHES[place % 4]}" d="{path}"/>')
    labels = [
        *(f'<span class="y" style="top:{_percent(1 - up(t))}">{short(t)}</span>' for t in up.ticks),
        *(f'<span class="x" style="left:{_percent(across(t))}">{short(t)}</span>' for t in across.ticks),
    ]
    keys = "".join(_key(place, line) for place, line in enumerate(drawn))
    said = "; ".join(
        f"{line.name}: {short(line.ys[0])} at {x} {short(line.xs[0])}, {short(line.ys[-1])} at {x} "
        f"{short(line.xs[-1])}, lowest {short(min(line.ys))}, highest {short(max(line.ys))}"
        for line in drawn
    )
    return _figure(
        title,
        f'<ul class="keys">{keys}</ul><p class="unit">{escape(y)}</p>'
        f'<div class="plot" role="img" aria-label="{escape(f"{title}. {y} by {x}. {said}")}">'
        f'<div class="field">{_svg(marks)}{"".join(labels)}</div></div><p class="unit end">{escape(x)}</p>'
        + _numbers(drawn, x),
    )


def interval_chart(title: str, intervals: Sequence[Interval], *, x: str) -> str:
    """Values with their intervals on one scale that holds zero, a row each; `x` names what is measured."""
    rows = [row for row in intervals if all(map(math.isfinite, (row.value, row.low, row.high)))]
    if not rows:
        return _figure(title, '<p class="none">Nothing was measured.</p>')
    scale = _Scale([0.0, *(value for row in rows for value in (row.low, row.high))])
    zero = _unit(scale(0.0))
    lines = []
    for row in rows:
        low, value, high = (_unit(scale(part)) for part in (row.low, row.value, row.high))
        marks = [
            *(f'<path class="grid" d="M{_unit(scale(t))} 0V{_FIELD}"/>' for t in scale.ticks),
            f'<path class="zero" d="M{zero} 0V{_FIELD}"/>',
            f'<path class="span" d="M{low} 500H{high}M{low} 300V700M{high} 300V700"/>',
            f'<path class="dot" d="M{value} 500h0"/>',
        ]
        said = f"{row.label}: {signed(row.value)}, interval {signed(row.low)} to {signed(row.high)}"
        lines.append(
            f'<li><span class="label">{escape(row.label)}</span>'
            f'<div class="plot" role="img" aria-label="{escape(said)}"><div class="field">{_svg(marks)}</div></div>'
            f'<span class="note"><b>{signed(row.value)}</b> <small>{signed(row.low)} to {signed(row.high)}'
            f"{'; ' if row.note else ''}{escape(row.note)}</small></span></li>"
        )
    ticks = "".join(f'<span class="x" style="left:{_percent(scale(t))}">{short(t)}</span>' for t in scale.ticks)
    axis = f'<li class="axis" aria-hidden="true"><span></span><div class="field">{ticks}</div><span></span></li>'
    body = f'<ol class="intervals">{"".join(lines)}{axis}</ol><p class="unit end">{escape(x)}</p>'
    return _figure(title, body)


def parallel_chart(title: str, axes: Sequence[Axis], names: Sequence[str], ranks: Sequence[int]) -> str:
    """Parallel coordinates: axes one beneath the other, a line a trial, so that any number of axes fits a phone.

    `names` are the trials', shown when one is pointed at; `ranks` count from 0, the best, which is drawn boldly; the
    best quarter is drawn above the others. A trial without a value on an axis has a gap there.
    """
    if not axes or not names:
        return _figure(title, '<p class="none">No trial came to an end.</p>')
    scales = [_places(axis) for axis in axes]
    rungs = [(_FIELD * (place + 0.5)) / len(axes) for place in range(len(axes))]
    marks = [f'<path class="rung" d="M0 {_round(rung)}H{_FIELD}"/>' for rung in rungs]
    for trial in sorted(range(len(names)), key=lambda trial: -ranks[trial]):
        kind = "first" if ranks[trial] == 0 else "near" if ranks[trial] * 4 < len(names) else "far"
        pieces, pen = [], "M"
        for axis, place, rung in zip(axes, scales, rungs, strict=True):
            value = axis.values[trial]
            across = None if value is None else place(value)
            if across is None:
                pen = "M"
                continue
            pieces.append(f"{pen}{_unit(across)} {_round(rung)}")
            pen = "L"
        if pieces:
            path = f'<path class="trial {kind}" d="{"".join(pieces)}"><title>{escape(names[trial])}</title></path>'
            marks.append(path)
    labels = [_axis_labels(axis, rung / _FIELD) for axis, rung in zip(axes, rungs, strict=True)]
    best = min(range(len(names)), key=lambda trial: ranks[trial])
    values = ", ".join(f"{axis.name} {_said(axis.values[best])}" for axis in axes)
    return _figure(
        title,
        f'<ul class="keys"><li>{_swatch("trial first")}best</li><li>{_swatch("trial near")}best quarter</li>'
        f"<li>{_swatch('trial far')}others</li></ul>"
        f'<div class="plot" role="img" aria-label="{escape(f"{title}. {len(names)} trials; the best: {values}")}">'
        f'<div class="field parallel" style="block-size:{4.75 * len(axes):.2f}rem">{_svg(marks)}{"".join(labels)}'
        "</div></div>",
    )


def short(value: float) -> str:
    """A number in few characters."""
    if value and abs(value) < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}".replace("-", "−")
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return text.replace("-", "−")


def signed(value: float) -> str:
    """A difference, with its sign."""
    return short(value) if value <= 0 else f"+{short(value)}"


class _Scale:
    """From values to shares of the field, with a few round ticks, between numbers of things only at `whole` ones."""

    def __init__(self, values: Sequence[float], whole: bool = False) -> None:
        low, high = min(values), max(values)
        size = max(abs(low), abs(high))
        if high - low <= _FLAT * size or size < _TINY:
            half = size / 2 if size >= _TINY else 0.5
            low, high = low - half, high + half
        rough = (high - low) / 4
        step = _round_step(max(1, rough), (1, 2, 5, 10)) if whole else _round_step(rough, (1, 2, 2.5, 5, 10))
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        self._low, self._width = first * step, (last - first) * step
        self.ticks = [float(f"{number * step:.12g}") for number in range(first, last + 1)]

    def __call__(self, value: float) -> float:
        return (value - self._low) / self._width


def _round_step(rough: float, parts: Sequence[float]) -> float:
    # Below the smallest normal number logarithms and powers give up.
    rough = max(rough, sys.float_info.min)
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * part for part in parts if power * part >= rough * (1 - 1e-9))


def _places(axis: Axis) -> Callable[[float | str], float | None]:
    """Where on its axis a value lies, 0 to 1."""
    numbers = _numbers_of(axis)
    if numbers is None:
        names = _names_of(axis)
        return lambda value: 0.5 if len(names) == 1 else names.index(str(value)) / (len(names) - 1)
    log = axis.log and min(numbers) > 0
    low, high = (math.log(part) if log else part for part in (min(numbers), max(numbers)))

    def place(value: float | str) -> float | None:
        if isinstance(value, str) or not math.isfinite(value):
            return None
        return 0.5 if low == high else ((math.log(value) if log else value) - low) / (high - low)

    return place


def _axis_labels(axis: Axis, share: float) -> str:
    numbers = _numbers_of(axis)
    ends = _names_of(axis) if numbers is None else [short(end) for end in dict.fromkeys((min(numbers), max(numbers)))]
    last = len(ends) - 1
    spots = [
        f'<span class="end" style="left:{_percent(place / last if last else 0.5)};top:{_percent(share)};'
        f'transform:translateX({-100 * place // last if last else -50}%)">{escape(text)}</span>'
        for place, text in enumerate(ends)
        if last < 5 or place in (0, last)
    ]
    return f'<span class="name" style="top:{_percent(share)}">{escape(axis.name)}</span>{"".join(spots)}'


def _numbers_of(axis: Axis) -> list[float] | None:
    """The numbers of an axis; None where it has names."""
    there = [value for value in axis.values if value is not None]
    if any(isinstance(value, str | bool) for value in there):
        return None
    numbers = [float(value) for value in there if math.isfinite(float(value))]
    return numbers or None


def _names_of(axis: Axis) -> list[str]:
    return sorted({str(value) for value in axis.values if value is not None}) or [""]


def _said(value: float | str | None) -> str:
    return "none" if value is None else value if isinstance(value, str) else short(value)


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
    swatch = _swatch(f"line s{place % 4 + 1}", _DASHES[place % 4])
    return f"<li>{swatch}{escape(line.name)} <b>{short(line.ys[-1])}</b></li>"


def _swatch(kind: str, dash: str = "") -> str:
    path = f'<path class="{kind}" stroke-dasharray="{dash}" d="M0 6H28"/>'
    return f'<svg class="swatch" viewBox="0 0 28 12" aria-hidden="true">{path}</svg>'


def _figure(title: str, body: str) -> str:
    return f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{body}</figure>'


def _svg(marks: Sequence[str]) -> str:
    box = f'viewBox="0 0 {_FIELD} {_FIELD}" preserveAspectRatio="none" aria-hidden="true"'
    return f"<svg {box}>{''.join(marks)}</svg>"


def _unit(share: float) -> str:
    return _round(_FIELD * share)


def _down(share: float) -> str:
    return _round(_FIELD * (1 - share))


def _round(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"


STYLE = """
:root {
  --s1: #0b5d6b; --s2: #b04a00; --s3: #7a3b9c; --s4: #5e5a53; --grid: #e4e0d7; --far: #8b867c;
}
@media screen and (prefers-color-scheme: dark) {
  :root { --s1: #82cbd6; --s2: #f0a45c; --s3: #cba2e8; --s4: #a9a69f; --grid: #2e3134; --far: #767a80; }
}
.chart { margin-block: 1.5rem; break-inside: avoid; }
.chart figcaption { font-size: 1.0625rem; font-weight: 600; }
.chart .keys { display: flex; flex-wrap: wrap; gap: 0.1rem 1.25rem; margin-block: 0.35rem; font-size: 0.8125rem; }
.chart .keys b { font-weight: 600; font-variant-numeric: tabular-nums; }
.chart .swatch { inline-size: 28px; block-size: 12px; margin-inline-end: 0.4rem; vertical-align: -1px; }
.chart .unit, .chart .none { font-size: 0.75rem; color: var(--soft); margin-block: 0; max-inline-size: none; }
.chart .unit.end { text-align: end; }
.chart .field { position: relative; block-size: 14rem; margin: 0.5rem 0.75rem 1.4rem 3.4rem; }
.chart .field svg { position: absolute; inline-size: 100%; block-size: 100%; overflow: visible; }
.chart path { fill: none; vector-effect: non-scaling-stroke; }
.chart .grid { stroke: var(--grid); stroke-width: 1px; }
.chart .zero { stroke: var(--ink); stroke-width: 1px; }
.chart .line { stroke-width: 2px; stroke-linejoin: round; stroke-linecap: round; }
.chart .s1 { stroke: var(--s1); }
.chart .s2 { stroke: var(--s2); }
.chart .s3 { stroke: var(--s3); }
.chart .s4 { stroke: var(--s4); }
.chart .span { stroke: var(--s1); stroke-width: 2px; }
.chart .dot { stroke: var(--s1); stroke-width: 9px; stroke-linecap: round; }
.chart .x, .chart .y, .chart .end, .chart .name {
  position: absolute; font-size: 0.75rem; line-height: 1; color: var(--soft); white-space: nowrap;
  font-variant-numeric: tabular-nums;
}
.chart p.end { position: static; line-height: inherit; }
.chart .y { right: calc(100% + 0.5rem); transform: translateY(-50%); }
.chart .x { top: calc(100% + 0.45rem); transform: translateX(-50%); }
.chart table { margin-block: 0.5rem 0; }
.intervals li {
  display: grid; grid-template-columns: minmax(6rem, 14rem) 1fr minmax(6rem, 12rem); align-items: center; gap: 0 1rem;
}
.intervals .plot { align-self: stretch; }
.intervals .field { block-size: 100%; min-block-size: 2.5rem; margin: 0 0.75rem; }
.intervals .label { font-size: 0.875rem; }
.intervals .note { font-size: 0.875rem; font-variant-numeric: tabular-nums; }
.intervals .note small { display: block; }
.intervals .axis .field { block-size: 0; min-block-size: 0; margin-block-end: 1.2rem; }
.chart .field.parallel { margin: 0.5rem 0.25rem; }
.chart .rung { stroke: var(--far); stroke-width: 1px; }
.chart .trial { stroke-linejoin: round; }
.chart .trial.far { stroke: var(--far); stroke-width: 1px; opacity: 0.6; }
.chart .trial.near { stroke: var(--s1); stroke-width: 1.5px; }
.chart .trial.first { stroke: var(--s2); stroke-width: 3.5px; }
.chart .name { left: 0; margin-block-start: -1.25rem; color: var(--ink); font-weight: 600; background: var(--paper); }
.chart .end { margin-block-start: 0.3rem; padding-inline: 1px; background: var(--paper); }
.chart p.end { margin: 0; padding: 0; background: none; }
@media (max-width: 40em) {
  .intervals li { grid-template-columns: 1fr; padding-block: 0.5rem; }
  .intervals .field { block-size: 1.5rem; min-block-size: 0; }
}
"""
"""What the charts look like; the page around gives --ink, --soft and --paper."""
