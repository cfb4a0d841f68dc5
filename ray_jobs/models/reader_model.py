"""What runs a reader: padded windows in, the logits of starts and ends out.

Guaranteed by every engine: a row of the output belongs to the same row of the input, whatever the padding. Not
guaranteed: that logits of two models, or of two windows, can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ray_jobs.models.embedder_config import Precision
from ray_jobs.models.pairs import PairBatch
from ray_jobs.models.reader_windows import WindowTokenizer


@dataclass(frozen=True, slots=True)
class SpanLogits:
    """How far each token speaks for being the first, or the last, of the answer: float32 of shape (rows, tokens)."""

    start: NDArray[np.float32]
    end: NDArray[np.float32]


class ReaderEngine(Protocol):
    """Runs the whole model: transformer and span head."""

    def forward(self, batch: PairBatch) -> SpanLogits:
        """Logits of every token of the batch, padding included."""
        ...


@dataclass(frozen=True, slots=True)
class ReaderModel:
    """A model ready to run: who it is, its tokens, its engine, and the batches that suit the engine.

    `max_tokens` is the model's own maximum of a window, `position_limit` the longest input that the network can take,
    `threshold` the margin over "no answer" that its card asks for, None where it has no card.
    """

    name: str
    revision: str
    precision: Precision
    tokens: WindowTokenizer
    engine: ReaderEngine
    threshold: float | None
    max_tokens: int
    position_limit: int
    pad_id: int
    pad_left: bool
    pad_multiple: int
    batch_tokens: int
