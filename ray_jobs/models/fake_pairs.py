"""A deterministic reranker for tests: no weights, no torch, starts at once.

Guaranteed: a score is the share of the query's distinct tokens that the text holds, between 0 and 1, the same on every
machine. Not guaranteed: any notion of meaning.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ray_jobs.models.fake_engine import FakeTokenizer
from ray_jobs.models.pairs import Pair, PairBatch, PairIds, PairModel

FAKE_RERANKER_NAME = "fake"
# Of all that FakeTokenizer adds to a text: a start and an end.
_LARGEST_SPECIAL = 2
_NO_LIMIT = 1 << 20


class FakePairTokens:
    """The words of the query, then those of the text, each between a start and an end token."""

    def __init__(self) -> None:
        self._tokens = FakeTokenizer()

    def overhead(self, query: str) -> int:
        """Tokens that a pair with this query has besides those of the text."""
        return len(self._whole(query)) + self._tokens.special_tokens

    def pairs(self, pairs: Sequence[Pair], max_tokens: int) -> list[PairIds]:
        """Tokens of each pair; segment 0 is the query, 1 the text."""
        tokenized = []
        for query, text in pairs:
            first = self._whole(query)
            (second,) = self._tokens.ids([text], max_tokens - len(first))
            segments = np.repeat(np.array([0, 1], dtype=np.int64), [len(first), len(second)])
            tokenized.append(PairIds(np.concatenate([first, second]), segments))
        return tokenized

    def _whole(self, query: str) -> NDArray[np.int64]:
        return self._tokens.ids([query], _NO_LIMIT)[0]


class FakePairEngine:
    """Counts the query's tokens that the text holds."""

    def forward(self, batch: PairBatch) -> NDArray[np.float32]:
        """Shares, float32 of shape (rows,)."""
        words = (batch.attention_mask == 1) & (batch.input_ids > _LARGEST_SPECIAL)
        scores = np.zeros(len(batch.input_ids), dtype=np.float32)
        for row, (ids, known, segments) in enumerate(zip(batch.input_ids, words, batch.segments, strict=True)):
            query = np.unique(ids[known & (segments == 0)])
            if len(query):
                scores[row] = np.isin(query, ids[known & (segments == 1)]).mean()
        return scores


def fake_pair_model() -> PairModel:
    """The fake, ready to run."""
    return PairModel(
        name=FAKE_RERANKER_NAME,
        revision="fake-1",
        engine_name="fake",
        precision="float32",
        tokens=FakePairTokens(),
        engine=FakePairEngine(),
        max_tokens=256,
        position_limit=_NO_LIMIT,
        pad_id=0,
        pad_left=False,
        pad_multiple=1,
        batch_tokens=4096,
    )
