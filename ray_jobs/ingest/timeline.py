"""Amounts over time in bounded memory.

Guaranteed: whatever the length of a run, at most BINS bins, and what was added is all there. Not guaranteed: when
within a bin; and of an amount that was made over a time that it was made evenly.
"""

from __future__ import annotations

BINS = 240


class Timeline:
    """Amounts by name in bins of equal width from time 0; the width doubles when time runs past the last bin."""

    def __init__(self, width: float = 0.25) -> None:
        self.width = width
        self._amounts: dict[str, list[float]] = {}

    def add(self, name: str, start: float, end: float, amount: float) -> None:
        """Add an amount that was made between two times, seconds, evenly."""
        start = max(0.0, start)
        end = max(start, end)
        while end >= BINS * self.width:
            self._halve()
        bins = self._amounts.setdefault(name, [])
        first, last = int(start / self.width), int(end / self.width)
        bins.extend([0.0] * (last + 1 - len(bins)))
        if end == start:
            bins[last] += amount
            return
        for place in range(first, last + 1):
            inside = min(end, (place + 1) * self.width) - max(start, place * self.width)
            bins[place] += amount * (inside / (end - start))  # a share, however short the time is

    def rates(self, name: str) -> tuple[list[float], list[float]]:
        """The middle of each bin, from the first with an amount to the last, and the amount a second in it."""
        bins = self._amounts.get(name, [])
        held = [place for place, amount in enumerate(bins) if amount]
        if not held:
            return [], []
        places = range(held[0], held[-1] + 1)
        return [(place + 0.5) * self.width for place in places], [bins[place] / self.width for place in places]

    def total(self, name: str) -> float:
        """All that was added."""
        return sum(self._amounts.get(name, ()))

    def _halve(self) -> None:
        self.width *= 2
        for name, bins in self._amounts.items():
            if len(bins) % 2:
                bins.append(0.0)
            self._amounts[name] = [bins[place] + bins[place + 1] for place in range(0, len(bins), 2)]
