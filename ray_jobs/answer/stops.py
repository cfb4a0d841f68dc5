"""Stop strings in text that a language model is still writing.

Guaranteed: what is given out is the text before the stop string that is complete first (of those that end at the same
place, the longest), however the text is cut into pieces; no part of that stop string is ever given out.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopFilter:
    """Holds back what could be the beginning of a stop string; one for each answer."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False

    def feed(self, piece: str) -> str:
        """What may be given out with `piece`; nothing more comes once `stopped` is set."""
        if self.stopped:
            return ""
        text = self._held + piece
        found = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)[1]]
        ready = len(text) - self._open_end(text)
        self._held = text[ready:]
        return text[:ready]

    def finish(self) -> str:
        """What was held back, at the end of a text that no stop string ended."""
        held, self._held = self._held, ""
        return held

    def _open_end(self, text: str) -> int:
        """The length of the longest end of `text` that begins a stop string."""
        longest = max((len(stop) for stop in self._stops), default=0) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0
