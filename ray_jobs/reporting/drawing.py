"""What the charts are drawn with: scales, numbers in few characters, pieces of SVG and HTML.

Guaranteed: a drawing fills the width it is given; every text is escaped; a scale holds every value that it is made of.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from html import escape

FIELD = 1000  # units of a drawing, in both directions
_FLAT = 1e-9  # values that vary less, as a share of their size, are level
_TINY = 1e-200


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


class Scale:
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
        """The share of the field at which a value lies."""
        return (value - self._low) / self._width


class Doubling(Scale):
    """A scale that doubles from tick to tick, for values above 0."""

    def __init__(self, values: Sequence[float]) -> None:
        super().__init__([math.log2(value) for value in values], whole=True)
        self.ticks = [2.0**tick for tick in self.ticks]

    def __call__(self, value: float) -> float:
        """The share of the field at which a value lies."""
        return super().__call__(math.log2(value))


def _round_step(rough: float, parts: Sequence[float]) -> float:
    # Below the smallest normal number logarithms and powers give up.
    rough = max(rough, sys.float_info.min)
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * part for part in parts if power * part >= rough * (1 - 1e-9))


def swatch(kind: str, dash: str = "") -> str:
    """The sign of a line in a key; `kind` are its classes."""
    path = f'<path class="{kind}" stroke-dasharray="{dash}" d="M0 6H28"/>'
    return f'<svg class="swatch" viewBox="0 0 28 12" aria-hidden="true">{path}</svg>'


def figure(title: str, body: str) -> str:
    """A chart with its title; `body` is HTML."""
    return f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{body}</figure>'


def svg(marks: Sequence[str]) -> str:
    """Marks over the whole field, which stretch with it."""
    box = f'viewBox="0 0 {FIELD} {FIELD}" preserveAspectRatio="none" aria-hidden="true"'
    return f"<svg {box}>{''.join(marks)}</svg>"


def unit(share: float) -> str:
    """A share of the field in units, from the left."""
    return rounded(FIELD * share)


def down(share: float) -> str:
    """A share of the field in units, from below."""
    return rounded(FIELD * (1 - share))


def rounded(value: float) -> str:
    """A number of units as it is written."""
    return f"{value:.1f}".removesuffix(".0")


def percent(share: float) -> str:
    """A share as CSS has it."""
    return f"{100 * share:.2f}%"
