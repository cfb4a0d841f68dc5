"""From logits to spans: the best stretch of passage tokens of each window. Pure arrays, no model.

The score of a span is the logit of its first token as a start plus that of its last token as an end, as SQuAD's
baselines define it; the score of "no answer" is the same sum at the null token, which stands before the question.

Guaranteed: a span begins and ends at readable tokens, in this order, and has at most the tokens allowed; no other span
of the window scores higher, and among equals it is the one that begins first, then ends first. Not guaranteed: that
scores of two windows can be compared; their margins over "no answer", which are log odds, can.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ray_jobs.models.reader_batch import PaddedWindows
from ray_jobs.models.reader_model import SpanLogits


@dataclass(frozen=True, slots=True)
class Decoded:
    """The best span of each window: its tokens `first` to `last`, both inclusive, and two scores; all (rows,).

    The score of a window without a readable token is minus infinity.
    """

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    score: NDArray[np.float32]
    null_score: NDArray[np.float32]


def decode(logits: SpanLogits, windows: PaddedWindows, max_answer_tokens: int) -> Decoded:
    """The best span of every window."""
    rows, tokens = logits.start.shape
    width = min(max_answer_tokens, tokens)
    starts, ends = (np.where(windows.readable, part, np.float32(-np.inf)) for part in (logits.start, logits.end))
    beyond = np.full((rows, width - 1), -np.inf, dtype=np.float32)
    reach = sliding_window_view(np.concatenate([ends, beyond], axis=1), width, axis=1)
    totals = (starts[:, :, None] + reach).reshape(rows, tokens * width)
    best = totals.argmax(axis=1)
    each = np.arange(rows)
    first = best // width - windows.offsets
    null = logits.start[each, windows.null] + logits.end[each, windows.null]
    return Decoded(first, first + best % width, totals[each, best], null)
