"""What runs a cross-encoder: pairs of a query and a text as tokens in, one score a pair out.

Guaranteed by every engine: a score belongs to the same row of the input, whatever the padding. Not guaranteed: that
scores of two models, or of two queries, can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ray_jobs.models.embedder_config import Precision
from ray_jobs.models.reranker_config import RerankerEngineName

Pair = tuple[str, str]
"""A query and a text."""


@dataclass(frozen=True, slots=True)
class PairIds:
    """One pair as tokens: ids with special tokens, and for each the segment it belongs to; both int64 (tokens,)."""

    ids: NDArray[np.int64]
    segments: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Padded pairs: all int64 of shape (rows, tokens); the mask is 0 on padding."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    segments: NDArray[np.int64]


class PairTokens(Protocol):
    """Turns pairs into tokens."""

    def overhead(self, query: str) -> int:
        """Tokens that a pair with this query has besides those of the text: query, prompt and special tokens."""
        ...

    def pairs(self, pairs: Sequence[Pair], max_tokens: int) -> list[PairIds]:
        """Tokens of each pair, at most `max_tokens` each; what is too long loses the end of its text, never of its
        query. The overhead of every query must be below `max_tokens`.
        """
        ...


class PairEngine(Protocol):
    """Runs the whole model: transformer, head, and the function that its scores go through."""

    def forward(self, batch: PairBatch) -> NDArray[np.float32]:
        """Scores, float32 of shape (rows of the batch,); higher is better."""
        ...


@dataclass(frozen=True, slots=True)
class PairModel:
    """A model ready to run: who it is, its tokens, its engine, and the batches that suit the engine.

    `max_tokens` is the model's own maximum of a pair, `position_limit` the longest input that the network can take.
    """

    name: str
    revision: str
    engine_name: RerankerEngineName
    precision: Precision
    tokens: PairTokens
    engine: PairEngine
    max_tokens: int
    position_limit: int
    pad_id: int
    pad_left: bool
    pad_multiple: int
    batch_tokens: int
