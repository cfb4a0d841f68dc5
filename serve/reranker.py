"""The reranker: scores the texts of several calls in one pass.

Guaranteed: a call gets a score for each of its texts, in order, or an error of its own; a call whose query cannot be
scored does not harm those beside it. A call whose time is over before its turn comes is not scored. One pass runs at a
time, off the event loop. Not guaranteed: that a pass ends in time for every call in it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

from ray_jobs.errors import TandemError
from ray_jobs.models.reranker import Reranker
from serve.errors import DeadlineError
from serve.messages import RerankCall, RerankReply

# Bytes of UTF-8 a token, and special tokens of a pair: near enough for most tokenisers and languages.
_BYTES_PER_TOKEN = 4
_SPECIAL_TOKENS = 3


def tokens_of(call: RerankCall, longest: int = 512) -> int:
    """About how many tokens a call has, where a pair is cut at `longest`: cheap, and the same with every model."""
    query = len(call.query.encode(errors="replace")) // _BYTES_PER_TOKEN + _SPECIAL_TOKENS
    return sum(min(longest, query + len(text.encode(errors="replace")) // _BYTES_PER_TOKEN) for text in call.texts)


class RerankerHost:
    """One loaded reranker that answers batches of calls."""

    def __init__(self, reranker: Reranker, clock: Callable[[], float] = time.monotonic) -> None:
        self._reranker = reranker
        self._clock = clock
        self._turn = threading.Lock()  # two passes side by side would only slow each other

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._reranker.identity.model

    async def scores(self, calls: Sequence[RerankCall]) -> list[RerankReply | TandemError]:
        """A reply or an error for each call, in order."""
        return await asyncio.to_thread(self._score, calls, self._clock())

    def _score(self, calls: Sequence[RerankCall], received: float) -> list[RerankReply | TandemError]:
        with self._turn:
            waited = self._clock() - received
            refused = [self._refusal(call, waited) for call in calls]
            pairs = [
                (call.query, text)
                for call, error in zip(calls, refused, strict=True)
                if error is None
                for text in call.texts
            ]
            try:
                scored = self._reranker.score_pairs(pairs)
            except TandemError as failure:
                return [error or failure for error in refused]
        replies: list[RerankReply | TandemError] = []
        start = 0
        for call, error in zip(calls, refused, strict=True):
            if error is not None:
                replies.append(error)
                continue
            rows = slice(start, start + len(call.texts))
            scores = tuple(map(float, scored.scores[rows]))
            replies.append(RerankReply(self.model, scores, int(scored.tokens[rows].sum())))
            start = rows.stop
        return replies

    def _refusal(self, call: RerankCall, waited: float) -> TandemError | None:
        if waited >= call.budget_s:
            return DeadlineError(
                f"reranking waited {waited:.1f} s of {call.budget_s:.1f} s for its turn; try again later"
            )
        try:
            self._reranker.check(call.query)
        except TandemError as error:
            return error
        return None
