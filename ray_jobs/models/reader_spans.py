"""From what a model says of windows to one span a passage.

Guaranteed: the span of a passage is that of the window whose margin over "no answer" is largest, the first such one; it
holds every character that its tokens cover, white space around them apart, and no part of a character is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ray_jobs.models.reader_batch import PaddedWindows
from ray_jobs.models.reader_decoding import Decoded, decode
from ray_jobs.models.reader_model import SpanLogits
from ray_jobs.models.reader_text import whole_characters
from ray_jobs.models.reader_windows import Window


@dataclass(frozen=True, slots=True)
class PassageSpan:
    """The best span of a passage, `passage[start:end]` in code points, and its score beside that of "no answer"."""

    start: int
    end: int
    score: float
    null_score: float

    @property
    def margin(self) -> float:
        """How far the span is preferred to "no answer": the logarithm of their odds."""
        return self.score - self.null_score


def window_spans(
    windows: Sequence[Window],
    passages: Sequence[str],
    padded: PaddedWindows,
    logits: SpanLogits,
    max_answer_tokens: int,
) -> list[PassageSpan | None]:
    """The best span of each window of a batch, in its passage; None where there is nothing to read.

    `passages` are those of all pairs; `padded` and `logits` are of these windows, in this order.
    """
    decoded = decode(logits, padded, max_answer_tokens)
    return [
        _span(window, decoded, place, passages[window.pair]) if window.readable.any() else None
        for place, window in enumerate(windows)
    ]


def passage_spans(
    windows: Sequence[Window], spans: Sequence[PassageSpan | None], pairs: int
) -> list[PassageSpan | None]:
    """The best span of each of so many pairs, of those of all windows in their order."""
    best: list[PassageSpan | None] = [None] * pairs
    for window, span in zip(windows, spans, strict=True):
        held = best[window.pair]
        if span is not None and (held is None or span.margin > held.margin):
            best[window.pair] = span
    return best


def _span(window: Window, decoded: Decoded, place: int, passage: str) -> PassageSpan:
    first, last = window.spans[decoded.first[place]], window.spans[decoded.last[place]]
    start, end = whole_characters(passage, int(first[0]), int(last[1]))
    return PassageSpan(start, end, float(decoded.score[place]), float(decoded.null_score[place]))
