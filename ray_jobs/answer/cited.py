"""Text that a model writes, with its markers, as the events of a cited answer.

Guaranteed, whatever the model writes: the pieces of text join to the final text; every "[n]" in it has a citation whose
quote is cut exactly from the passage of that number, and comes before the Final; numbers that were not given are left
out, with the space before them; the same citation comes once. `grounded` is true only for an answer that cites, does
not abstain, and is supported as far as `min_support` asks (see ``support``).

Not guaranteed: that what is grounded is right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ray_jobs.answer.markers import Marker, MarkerScanner
from ray_jobs.answer.protocol import AnswerEvent, Citation, Cited, TextDelta
from ray_jobs.answer.quotable import sentence_spans
from ray_jobs.answer.support import Sources, abstains

_OPEN_BRACKET = re.compile(r"\[\d{0,4}$")


@dataclass(frozen=True)
class Outcome:
    """What came of a text."""

    text: str
    citations: tuple[Citation, ...]
    grounded: bool


class CitedText:
    """Turns pieces of text into events; one for each answer."""

    def __init__(self, question: str, sources: Sources, min_support: float) -> None:
        self._question = question
        self._sources = sources
        self._min_support = min_support
        self._scanner = MarkerScanner()
        self._text = ""
        self._paragraph = ""  # since the last line end, without markers
        self._citations: dict[Citation, None] = {}

    def feed(self, piece: str) -> Iterator[AnswerEvent]:
        """The events that are certain with the next piece."""
        return self._events(self._scanner.feed(piece))

    def finish(self) -> Iterator[AnswerEvent]:
        """The events of what was held back."""
        return self._events(self._scanner.finish())

    @property
    def outcome(self) -> Outcome:
        """The text so far, its citations, and whether they bear it."""
        grounded = (
            bool(self._citations)
            and not abstains(self._text)
            and self._sources.support(self._text) >= self._min_support
        )
        return Outcome(self._text, tuple(self._citations), grounded)

    def _events(self, found: Iterable[str | Marker]) -> Iterator[AnswerEvent]:
        for item in found:
            if isinstance(item, Marker):
                yield from self._cite(item)
            else:
                self._paragraph = (self._paragraph + item).rsplit("\n", 1)[-1]
                yield self._say(item)

    def _cite(self, marker: Marker) -> Iterator[AnswerEvent]:
        statement = self._statement()
        cited = [self._sources.citation(number, statement) for number in marker.numbers]
        held = [citation for citation in cited if citation is not None]
        if held:
            yield self._say(marker.space + "".join(f"[{citation.number}]" for citation in held))
        elif _OPEN_BRACKET.search(self._text):
            # What follows must not close a bracket around digits that were never a marker.
            yield self._say(" ")
        for citation in held:
            if citation not in self._citations:
                self._citations[citation] = None
                yield Cited(citation)

    def _statement(self) -> str:
        """What a marker at this place speaks for: the sentence before it, or the question."""
        spans = sentence_spans(self._paragraph, 0, len(self._paragraph))
        return self._paragraph[slice(*spans[-1])] if spans else self._question

    def _say(self, text: str) -> TextDelta:
        self._text += text
        return TextDelta(text)
