"""What spans are worth beside the right answers: how well a reader answers, and how well it refuses.

A question with answers is asked of the passage that holds them and judged by the best span there, whatever its margin:
exact match and F1, as on SQuAD. From which margin on the reader should answer is chosen so that a given share of the
spans that are right are kept; with that threshold it is told how many questions without an answer in their passage are
refused.

Guaranteed: pure functions. Not guaranteed: that a threshold suits other data than those it was chosen on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ray_jobs.models.reader_metrics import exact_match, f1, share_below, threshold_that_keeps
from ray_jobs.models.reader_spans import PassageSpan

KEPT = 0.9
"""Share of right answers that the threshold keeps."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One question with one passage: what was right, none where the passage has no answer, and what was found."""

    passage: str
    answers: tuple[str, ...]
    span: PassageSpan | None

    @property
    def said(self) -> str:
        """The text of the span."""
        return "" if self.span is None else self.passage[self.span.start : self.span.end]

    @property
    def margin(self) -> float:
        """The margin of the span; minus infinity without one."""
        return -math.inf if self.span is None else self.span.margin


@dataclass(frozen=True, slots=True)
class ReaderQuality:
    """Shares between 0 and 1; None where no reading was of the kind that it is of.

    `exact_match` and `f1` are means over questions with answers; `threshold` keeps the share KEPT of those that match
    exactly; `answered` is the share of all questions with answers that reach it, `refused` of those without that do
    not.
    """

    exact_match: float | None
    f1: float | None
    threshold: float | None
    answered: float | None
    refused: float | None


def judge(readings: Sequence[Reading], threshold: float | None = None) -> ReaderQuality:
    """How good these readings are, with the threshold given, else with the one that keeps right answers."""
    asked = [reading for reading in readings if reading.answers]
    unanswerable = [reading.margin for reading in readings if not reading.answers]
    matches = [exact_match(reading.said, reading.answers) for reading in asked]
    if threshold is None:
        right = [reading.margin for reading, match in zip(asked, matches, strict=True) if match]
        threshold = threshold_that_keeps(right, KEPT) if right else None
    return ReaderQuality(
        exact_match=_mean(matches),
        f1=_mean([f1(reading.said, reading.answers) for reading in asked]),
        threshold=threshold,
        answered=None
        if threshold is None or not asked
        else 1 - share_below([reading.margin for reading in asked], threshold),
        refused=None if threshold is None or not unanswerable else share_below(unanswerable, threshold),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
