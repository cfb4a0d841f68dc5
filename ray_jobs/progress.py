"""Progress of long work: a bar on a terminal, a line every few seconds elsewhere, on standard error.

Guaranteed: nothing is written to standard output. Not guaranteed: the time left, which assumes that work goes on as
fast as it has so far.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

LINE_SECONDS = 5.0


class Stage(Protocol):
    """One stage of a job under way."""

    def advance(self, done: float, **counted: int) -> None:
        """Add `done` to what is finished, and each of `counted` (documents=, chunks=) to its sum."""
        ...

    def skip(self, done: float) -> None:
        """Add `done` that was finished before: it says nothing about how fast this stage is."""
        ...

    def show(self, **values: float) -> None:
        """Show these values (loss=) as they are, until others of the same names come."""
        ...

    def note(self, text: str) -> None:
        """Tell at once what keeps the stage from going on."""
        ...


class Progress(Protocol):
    """Where a job reports how far it is."""

    def stage(self, name: str, total: float) -> AbstractContextManager[Stage]:
        """A stage that is finished when `total` has been advanced."""
        ...


class Counter:
    """What has been done of one stage, and how fast."""

    def __init__(self, total: float) -> None:
        self.total = total
        self.done = 0.0
        self.skipped = 0.0
        self.counted: dict[str, int] = {}
        self.values: dict[str, float] = {}
        self.started = time.monotonic()

    def add(self, done: float, counted: dict[str, int]) -> None:
        """Add to the sums."""
        self.done += done
        for name, number in counted.items():
            self.counted[name] = self.counted.get(name, 0) + number

    def skip(self, done: float) -> None:
        """Add what was finished before this stage began."""
        self.done += done
        self.skipped += done

    @property
    def seconds(self) -> float:
        """Since the stage started."""
        return time.monotonic() - self.started

    @property
    def left(self) -> float | None:
        """Seconds left at the speed so far; None before anything is done."""
        own = self.done - self.skipped
        return self.seconds * (self.total - self.done) / own if own > 0 else None

    def rates(self) -> str:
        """Each sum with its rate, and each value."""
        seconds = max(self.seconds, 1e-9)
        sums = [f"{number:,} {name} ({number / seconds:,.1f}/s)" for name, number in self.counted.items()]
        return ", ".join([*sums, *(f"{name} {value:.4g}" for name, value in self.values.items())])


class SilentProgress:
    """Reports nothing."""

    @contextmanager
    def stage(self, name: str, total: float) -> Iterator[Stage]:
        """A stage that reports nothing."""
        yield _Silent()


class LineProgress:
    """A line when a stage starts and ends, and every few seconds between."""

    def __init__(self, stream: TextIO | None = None, every: float = LINE_SECONDS) -> None:
        self._stream = stream
        self._every = every

    @contextmanager
    def stage(self, name: str, total: float) -> Iterator[Stage]:
        """A stage that reports in lines."""
        stage = _Lines(name, Counter(total), self._stream, self._every)
        yield stage
        stage.end()


class BarProgress:
    """A bar for each stage on a terminal."""

    @contextmanager
    def stage(self, name: str, total: float) -> Iterator[Stage]:
        """A stage that draws a bar."""
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("{task.description:<7}"),
            BarColumn(bar_width=28),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[rates]}"),
        )
        with Bars(*columns, console=Console(stderr=True)) as bars:
            task = bars.add_task(name, total=total or None, rates="")
            counter = Counter(total)

            class _Bar:
                def advance(self, done: float, **counted: int) -> None:
                    counter.add(done, counted)
                    bars.update(task, advance=done, rates=counter.rates())

                def skip(self, done: float) -> None:
                    counter.skip(done)
                    # Begun anew from there, so that the time left is reckoned by what comes.
                    bars.reset(task, total=total or None, rates="")
                    bars.update(task, advance=done)

                def show(self, **values: float) -> None:
                    counter.values.update(values)
                    bars.update(task, rates=counter.rates())

                def note(self, text: str) -> None:
                    bars.console.print(f"{name:<7} {text}", markup=False, highlight=False)

            yield _Bar()
            bars.update(task, total=1, completed=1)


def for_terminal(stream: TextIO | None = None) -> Progress:
    """Bars where `stream` (standard error) is a terminal, lines elsewhere."""
    return BarProgress() if (stream or sys.stderr).isatty() else LineProgress(stream)


class _Silent:
    def advance(self, done: float, **counted: int) -> None:
        pass

    def skip(self, done: float) -> None:
        pass

    def show(self, **values: float) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class _Lines:
    def __init__(self, name: str, counter: Counter, stream: TextIO | None, every: float) -> None:
        self._name = name
        self._counter = counter
        self._stream = stream
        self._every = every
        self._last = counter.started

    def advance(self, done: float, **counted: int) -> None:
        self._counter.add(done, counted)
        if time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            counter = self._counter
            share = counter.done / counter.total if counter.total else 1.0
            left = "" if counter.left is None else f", {counter.left:.0f} s left"
            self._write(f"{share:4.0%} {counter.rates()}{left}")

    def skip(self, done: float) -> None:
        self._counter.skip(done)

    def show(self, **values: float) -> None:
        self._counter.values.update(values)

    def note(self, text: str) -> None:
        self._write(text)

    def end(self) -> None:
        self._write(f"done in {self._counter.seconds:.1f} s {self._counter.rates()}".rstrip())

    def _write(self, text: str) -> None:
        # Standard error is looked up each time: a session may have put another stream in its place.
        print(f"{self._name:<7} {text}", file=self._stream or sys.stderr, flush=True)
