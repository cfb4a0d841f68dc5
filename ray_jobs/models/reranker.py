"""A query and texts in, a score a text out: tokenise, batch by length, run the engine, check what comes back.

Guaranteed: score i belongs to text i, float32 and finite, higher is better; the model's own activation, prompt and
maximum length are used; a pair that is too long loses the end of its text, never of its query; in float32 a score is
the same (within 1e-5) whatever else is scored with it. Not guaranteed: that scores of two queries can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_jobs.errors import ModelError, UsageError
from ray_jobs.models.adapter import resolve_adapted
from ray_jobs.models.batching import pad, token_budget_batches, windows_by_length
from ray_jobs.models.embedder_config import Precision
from ray_jobs.models.encodable import encodable
from ray_jobs.models.fake_pairs import fake_pair_model
from ray_jobs.models.pairs import Pair, PairBatch, PairModel
from ray_jobs.models.reranker_config import (
    RerankerConfig,
    RerankerEngineName,
    RerankerOptions,
    choose_reranker_engine,
)
from ray_jobs.models.token_limit import batch_budget, tokens_read
from ray_jobs.storage import Storage

__all__ = ["Reranker", "RerankerConfig", "RerankerIdentity", "RerankerOptions", "Scored", "choose_reranker_engine"]

# Pairs tokenised at a time: enough for full batches, few enough for memory.
_WINDOW = 2048


@dataclass(frozen=True, slots=True)
class RerankerIdentity:
    """Which model gives the scores; `revision` names the content of base and adapter."""

    model: str
    revision: str
    engine: RerankerEngineName
    precision: Precision
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Scored:
    """Pairs with their scores, float32 (n,), and the tokens that each took, special tokens included, int64 (n,)."""

    scores: NDArray[np.float32]
    tokens: NDArray[np.int64]


class Reranker:
    """One loaded model. Safe to call from several threads."""

    def __init__(self, model: PairModel, config: RerankerConfig) -> None:
        self._model = model
        self.max_tokens = tokens_read(config.max_tokens, model.max_tokens, model.position_limit, model.name)
        self._batch_tokens = batch_budget(config.batch_tokens, model.batch_tokens, self.max_tokens, model.name)
        self.identity = RerankerIdentity(
            model.name, model.revision, model.engine_name, model.precision, self.max_tokens
        )

    @classmethod
    def load(cls, config: RerankerConfig, store: Storage | None = None) -> Reranker:
        """Find the model and start its engine; `auto` choices are made first.

        `store` is the one whose models count, if any. Raises NotFoundError when no place has the model or the base of
        an adapter, ModelError when it is no reranker, UsageError when the configuration does not suit it.
        """
        chosen = choose_reranker_engine(config)
        return cls(_load(chosen, store), chosen)

    def check(self, query: str) -> None:
        """Raise UsageError for a query that no text can be scored against."""
        if not query.strip():
            raise UsageError("query is empty; expected some words")
        overhead = self._model.tokens.overhead(encodable(query))
        if overhead >= self.max_tokens:
            raise UsageError(
                f"query of {len(query)} characters takes {overhead} tokens and leaves no room for a text in the "
                f"max_tokens={self.max_tokens} of {self.identity.model!r}: shorten the query"
            )

    def scores(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """How well each text answers the query, float32 of shape (texts,); higher is better.

        Raises UsageError for a query that is empty or too long.
        """
        self.check(query)
        return self.score_pairs([(query, text) for text in texts]).scores

    def score_pairs(self, pairs: Sequence[Pair]) -> Scored:
        """Scores of pairs of any queries, batched together.

        Raises UsageError if any query is empty or too long; `check` tells which.
        """
        for query in dict.fromkeys(query for query, _ in pairs):
            self.check(query)
        scored = Scored(np.empty(len(pairs), dtype=np.float32), np.empty(len(pairs), dtype=np.int64))
        for rows, batch in self._batches(pairs):
            scored.scores[rows] = self._forward(batch)
            scored.tokens[rows] = batch.attention_mask.sum(axis=1)
        return scored

    def _batches(self, pairs: Sequence[Pair]) -> Iterator[tuple[list[int], PairBatch]]:
        model = self._model
        for window in windows_by_length([text for _, text in pairs], _WINDOW):
            readable = [(encodable(query), encodable(text)) for query, text in (pairs[i] for i in window)]
            tokens = model.tokens.pairs(readable, self.max_tokens)
            if len(tokens) != len(window):
                raise ModelError(f"tokenizer of {model.name!r} returned {len(tokens)} pairs for {len(window)}")
            for rows in token_budget_batches([len(row.ids) for row in tokens], self._batch_tokens, model.pad_multiple):
                ids, mask = pad([tokens[r].ids for r in rows], model.pad_id, model.pad_multiple, model.pad_left)
                segments, _ = pad([tokens[r].segments for r in rows], 0, model.pad_multiple, model.pad_left)
                yield [window[r] for r in rows], PairBatch(ids, mask, segments)

    def _forward(self, batch: PairBatch) -> NDArray[np.float32]:
        scores = self._model.engine.forward(batch)
        expected = (len(batch.input_ids),)
        if scores.shape != expected:
            raise ModelError(f"model {self._model.name!r} returned shape {scores.shape}, expected {expected}")
        if not np.isfinite(scores).all():
            raise ModelError(
                f"model {self._model.name!r} returned NaN or infinite scores at precision={self._model.precision}: "
                "try precision=float32"
            )
        return scores


def _load(config: RerankerConfig, store: Storage | None) -> PairModel:
    if config.engine == "fake":
        return fake_pair_model()
    if config.precision == "auto" or config.device == "auto":
        raise UsageError(
            f"precision={config.precision}, device={config.device}: expected none to be auto when a model is loaded"
        )
    from ray_jobs.models.torch_pairs import torch_pair_model

    return torch_pair_model(resolve_adapted(config.model, store), config.device, config.precision, config.threads)
