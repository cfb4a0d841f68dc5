"""Rows of questions and passages as what a span head learns from: windows of tokens with the place of the answer.

Guaranteed: a window that holds the whole answer has its first and last token as targets; every other window, and each
one of a row without answer, has the null token, whose logits say "no answer". Of several answers the one counts that
most of the others agree with: those of several people differ, and the first is no better than the rest. The tokens are
those that ray_jobs.models.reader reads by. Not guaranteed: that a token boundary lies at either end of an answer: the
targets are the tokens that touch it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ray_jobs.models.batching import pad
from ray_jobs.models.reader_metrics import f1
from ray_jobs.models.reader_windows import Window, WindowTokenizer

if TYPE_CHECKING:
    import torch

PAD_MULTIPLE = 64
"""Every new shape costs oneDNN seconds of warm-up in bfloat16: few shapes are better than little padding."""

TARGETS = 2
"""Raised when other targets would be made of the same rows."""

COLUMNS = ("question", "passage", "answers", "starts")
Columns = Mapping[str, Sequence[Any]]
"""Rows as columns of equal length."""


@dataclass(frozen=True, slots=True)
class QuestionRow:
    """A question, a passage, and the right answers with their places in it, in code points; no answers: none there."""

    question: str
    passage: str
    answers: tuple[str, ...]
    starts: tuple[int, ...]


def rows_of(columns: Columns) -> list[QuestionRow]:
    """Rows of kind `qa`, in order."""
    return [
        QuestionRow(question, passage, tuple(answers), tuple(starts))
        for question, passage, answers, starts in zip(*(columns[name] for name in COLUMNS), strict=True)
    ]


def windows_of(
    rows: Sequence[QuestionRow], tokens: WindowTokenizer, max_tokens: int, stride: int
) -> list[tuple[Window, QuestionRow]]:
    """Every window of every row, in order, of at most `max_tokens` tokens; neighbours share `stride` of the passage.

    A row whose question leaves no room for a passage has none.
    """
    kept = [row for row in rows if tokens.overhead(row.question) < max_tokens]
    windows = tokens.windows([(row.question, row.passage) for row in kept], max_tokens, stride)
    return [(window, kept[window.pair]) for window in windows]


def features(windows: Sequence[tuple[Window, QuestionRow]]) -> dict[str, list[Any]]:
    """What a span head learns from, as columns: tokens, segments, and the first and last token of the answer."""
    targets = [target(window, row) for window, row in windows]
    return {
        "input_ids": [window.ids for window, _ in windows],
        "token_type_ids": [window.segments for window, _ in windows],
        "start_positions": [first for first, _ in targets],
        "end_positions": [last for _, last in targets],
    }


def target(window: Window, row: QuestionRow) -> tuple[int, int]:
    """The first and the last token of the answer in a window, both inclusive; twice the null token where it is not."""
    nowhere = window.null, window.null
    places = np.flatnonzero(window.readable)
    if not row.answers or not len(places):
        return nowhere
    chosen = agreed(row.answers)
    answer = row.answers[chosen]
    start = row.starts[chosen] + len(answer) - len(answer.lstrip())
    end = row.starts[chosen] + len(answer.rstrip())
    begins, ends = window.spans[places, 0], window.spans[places, 1]
    first, last = int(np.searchsorted(ends, start, side="right")), int(np.searchsorted(begins, end)) - 1
    # Before the first and after the last token of a window lie those of its neighbours, or what tokenisers drop.
    if start >= end or start < begins[0] or end > ends[-1] or first > last:
        return nowhere
    return int(places[first]), int(places[last])


def agreed(answers: Sequence[str]) -> int:
    """The place of the answer that shares most words (F1) with all of them; of equals the first."""
    return max(range(len(answers)), key=lambda place: (sum(f1(answers[place], [other]) for other in answers), -place))


@dataclass(frozen=True, slots=True)
class SpanCollator:
    """Windows of several lengths as one batch of tensors, padded on the right."""

    pad_id: int
    segments: bool  # whether the network takes them
    longest: int  # tokens that the network takes; no window has more
    multiple: int = PAD_MULTIPLE

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Each tensor is int64: (rows, tokens), and (rows,) for the targets."""
        import torch

        ids, mask = self._padded([item["input_ids"] for item in items], self.pad_id)
        batch = {"input_ids": ids, "attention_mask": mask}
        if self.segments:
            batch["token_type_ids"], _ = self._padded([item["token_type_ids"] for item in items], 0)
        for name in ("start_positions", "end_positions"):
            batch[name] = np.array([item[name] for item in items], dtype=np.int64)
        return {name: torch.from_numpy(array) for name, array in batch.items()}

    def _padded(self, rows: Sequence[Any], pad_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        ids, mask = pad([np.asarray(row, dtype=np.int64) for row in rows], pad_id, self.multiple, left=False)
        return ids[:, : self.longest], mask[:, : self.longest]
