"""Citation markers in text that a language model is still writing.

A marker is "[3]", or several numbers as "[1, 2]", outside code. A number in brackets inside code, between back-ticks,
is an index and no marker; it is written "[ 0 ]" from then on, so that nothing later takes it for one.

Guaranteed: however the text is cut into pieces, the same markers come at the same places and the same text between
them; white space before a marker comes with it, so that a marker that is left out leaves none behind. No piece that is
given out could still become part of a marker. Not guaranteed: that a number in brackets in prose is meant to cite.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_NUMBERS = r"\d{1,4}(?: ?[,;] ?\d{1,4}){0,9}"
_FENCE = 3  # back-ticks that open a block of code, which line ends do not close
_TOKEN = re.compile(rf"(?P<ticks>`+)|(?P<space>[ \t]*)\[(?P<numbers>{_NUMBERS})\]|(?P<line>\n)")
# The longest end of a text that may be the beginning of a token: 4 digits and a separator, ten times.
_OPEN = re.compile(r"(?:`+|[ \t]+|[ \t]*\[[\d,; ]{0,80})$")
_SINGLE = re.compile(r"\[(\d{1,4})\]")
_MARKER_WITH_SPACE = re.compile(rf"[ \t]*\[{_NUMBERS}\]")


@dataclass(frozen=True)
class Marker:
    """Numbers cited at one place, each once, and the white space before them."""

    numbers: tuple[int, ...]
    space: str


def without_markers(text: str) -> str:
    """``text`` without anything that looks like a marker."""
    return _MARKER_WITH_SPACE.sub("", text)


class MarkerScanner:
    """Cuts pieces of text into plain text and markers; one for each answer."""

    def __init__(self) -> None:
        self._held = ""
        self._ticks = 0  # back-ticks that opened the code we are in; 0 outside of code

    def feed(self, piece: str) -> Iterator[str | Marker]:
        """What is certain with `piece`; its end is held back while it could be the beginning of a marker."""
        text = self._held + piece
        open_end = _OPEN.search(text)
        ready = open_end.start() if open_end else len(text)
        self._held = text[ready:]
        return self._scan(text[:ready])

    def finish(self) -> Iterator[str | Marker]:
        """The end of the text; white space at it is left out."""
        held, self._held = self._held, ""
        return self._scan(held.rstrip(" \t"))

    def _scan(self, text: str) -> Iterator[str | Marker]:
        position = 0
        for match in _TOKEN.finditer(text):
            if match["ticks"]:
                self._pass(len(match["ticks"]))
            elif match["line"]:
                # Inline code ends with its line at the latest: an unpaired back-tick must not hide what follows.
                self._ticks = self._ticks if self._ticks >= _FENCE else 0
            elif not self._ticks:
                yield from _plain(text[position : match.start()])
                yield Marker(tuple(dict.fromkeys(map(int, re.findall(r"\d+", match["numbers"])))), match["space"])
                position = match.end()
        yield from _plain(text[position:])

    def _pass(self, ticks: int) -> None:
        if not self._ticks:
            self._ticks = ticks
        elif ticks == self._ticks:
            self._ticks = 0


def _plain(text: str) -> Iterator[str]:
    if text:
        yield _SINGLE.sub(r"[ \1 ]", text)
