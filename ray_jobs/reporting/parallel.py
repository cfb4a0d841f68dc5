"""Parallel coordinates: each line is a trial, each axis what it was tried with.

Guaranteed and not: as `charts` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from ray_jobs.reporting.drawing import FIELD, figure, percent, rounded, short, svg, swatch, unit


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of parallel coordinates: one value a line; numbers, or names where they are no numbers."""

    name: str
    values: Sequence[float | str | None]
    log: bool = False


def parallel_chart(title: str, axes: Sequence[Axis], names: Sequence[str], ranks: Sequence[int]) -> str:
    """Parallel coordinates: axes one beneath the other, a line a trial, so that any number of axes fits a phone.

    `names` are the trials', shown when one is pointed at; `ranks` count from 0, the best, which is drawn boldly; the
    best quarter is drawn above the others. A trial without a value on an axis has a gap there.
    """
    if not axes or not names:
        return figure(title, '<p class="none">No trial came to an end.</p>')
    scales = [_places(axis) for axis in axes]
    rungs = [(FIELD * (place + 0.5)) / len(axes) for place in range(len(axes))]
    marks = [f'<path class="rung" d="M0 {rounded(rung)}H{FIELD}"/>' for rung in rungs]
    for trial in sorted(range(len(names)), key=lambda trial: -ranks[trial]):
        kind = "first" if ranks[trial] == 0 else "near" if ranks[trial] * 4 < len(names) else "far"
        pieces, pen = [], "M"
        for axis, place, rung in zip(axes, scales, rungs, strict=True):
            value = axis.values[trial]
            across = None if value is None else place(value)
            if across is None:
                pen = "M"
                continue
            pieces.append(f"{pen}{unit(across)} {rounded(rung)}")
            pen = "L"
        if pieces:
            path = f'<path class="trial {kind}" d="{"".join(pieces)}"><title>{escape(names[trial])}</title></path>'
            marks.append(path)
    labels = [_axis_labels(axis, rung / FIELD) for axis, rung in zip(axes, rungs, strict=True)]
    best = min(range(len(names)), key=lambda trial: ranks[trial])
    values = ", ".join(f"{axis.name} {_said(axis.values[best])}" for axis in axes)
    return figure(
        title,
        f'<ul class="keys"><li>{swatch("trial first")}best</li><li>{swatch("trial near")}best quarter</li>'
        f"<li>{swatch('trial far')}others</li></ul>"
        f'<div class="plot" role="img" aria-label="{escape(f"{title}. {len(names)} trials; the best: {values}")}">'
        f'<div class="field parallel" style="block-size:{4.75 * len(axes):.2f}rem">{svg(marks)}{"".join(labels)}'
        "</div></div>",
    )


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
        f'<span class="end" style="left:{percent(place / last if last else 0.5)};top:{percent(share)};'
        f'transform:translateX({-100 * place // last if last else -50}%)">{escape(text)}</span>'
        for place, text in enumerate(ends)
        if last < 5 or place in (0, last)
    ]
    return f'<span class="name" style="top:{percent(share)}">{escape(axis.name)}</span>{"".join(spots)}'


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
