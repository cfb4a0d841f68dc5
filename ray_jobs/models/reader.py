"""A question and passages in, a span a passage out: where the answer stands, and how sure the model is that one does.

Guaranteed: span i belongs to passage i and is cut from it alone, in code points; a passage longer than a window is
read in windows that overlap, none of it is left out; the span is the best of all windows by its margin over the score
of "no answer" in the same window; in float32 spans are the same whatever else is read with them, unless two spans
score the same within 1e-5. A span never begins or ends inside a character that is written with several code points.

Not guaranteed: that a span is right; `margin` tells how far it is preferred to "no answer", and `threshold` from where
on the model answers. A model that was never shown a passage without an answer prefers one everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ray_jobs.errors import ModelError, UsageError
from ray_jobs.models.adapter import resolve_adapted
from ray_jobs.models.batching import token_budget_batches, windows_by_length
from ray_jobs.models.embedder_config import Precision
from ray_jobs.models.pairs import Pair, PairBatch
from ray_jobs.models.reader_batch import pad_windows
from ray_jobs.models.reader_config import ReaderConfig, ReaderOptions, choose_reader_engine
from ray_jobs.models.reader_model import ReaderModel, SpanLogits
from ray_jobs.models.reader_spans import PassageSpan, passage_spans, window_spans
from ray_jobs.models.token_limit import batch_budget, tokens_read
from ray_jobs.storage import Storage

__all__ = ["PassageSpan", "Reader", "ReaderConfig", "ReaderIdentity", "ReaderOptions", "choose_reader_engine"]

# Pairs tokenised at a time: enough for full batches, few enough for memory.
_PAIRS = 2048


@dataclass(frozen=True, slots=True)
class ReaderIdentity:
    """Which model gives the spans; `revision` names the content of base and adapter."""

    model: str
    revision: str
    engine: Literal["torch"]
    precision: Precision
    max_tokens: int


class Reader:
    """One loaded model. Safe to call from several threads."""

    def __init__(self, model: ReaderModel, config: ReaderConfig) -> None:
        self._model = model
        self._config = config
        self.max_tokens = tokens_read(config.max_tokens, model.max_tokens, model.position_limit, model.name)
        self._batch_tokens = batch_budget(config.batch_tokens, model.batch_tokens, self.max_tokens, model.name)
        stated = model.threshold if config.threshold is None else config.threshold
        self.threshold = 0.0 if stated is None else stated
        self.identity = ReaderIdentity(model.name, model.revision, "torch", model.precision, self.max_tokens)

    @classmethod
    def load(cls, config: ReaderConfig, store: Storage | None = None) -> Reader:
        """Find the model and start its engine; `auto` choices are made first.

        `store` is the one whose models count, if any. Raises NotFoundError when no place has the model or the base of
        an adapter, ModelError when it is no reader, UsageError when the configuration does not suit it.
        """
        chosen = choose_reader_engine(config)
        if chosen.precision == "auto" or chosen.device == "auto":
            raise UsageError(f"precision={chosen.precision}, device={chosen.device}: expected none to be auto")
        from ray_jobs.models.reader_torch import torch_reader_model

        adapted = resolve_adapted(chosen.model, store)
        return cls(torch_reader_model(adapted, chosen.device, chosen.precision, chosen.threads), chosen)

    def check(self, question: str) -> None:
        """Raise UsageError for a question that no passage can be read for."""
        if not question.strip():
            raise UsageError("question is empty; expected some words")
        overhead = self._model.tokens.overhead(question)
        if overhead >= self.max_tokens:
            raise UsageError(
                f"question of {len(question)} characters takes {overhead} tokens and leaves no room for a passage in "
                f"the max_tokens={self.max_tokens} of {self.identity.model!r}: shorten the question"
            )

    def spans(self, question: str, passages: Sequence[str]) -> list[PassageSpan | None]:
        """The best span of each passage; None for a passage without a word.

        Raises UsageError for a question that is empty or too long.
        """
        self.check(question)
        return self.read_pairs([(question, passage) for passage in passages])

    def read_pairs(self, pairs: Sequence[Pair]) -> list[PassageSpan | None]:
        """The best span of each pair (question, passage), of any questions, batched together.

        Raises UsageError if any question is empty or too long; `check` tells which.
        """
        for question in dict.fromkeys(question for question, _ in pairs):
            self.check(question)
        best: list[PassageSpan | None] = [None] * len(pairs)
        for chosen in windows_by_length([passage for _, passage in pairs], _PAIRS):
            for row, span in zip(chosen, self._read([pairs[row] for row in chosen]), strict=True):
                best[row] = span
        return best

    def _read(self, pairs: Sequence[Pair]) -> list[PassageSpan | None]:
        model, passages = self._model, [passage for _, passage in pairs]
        windows = model.tokens.windows(pairs, self.max_tokens, self._config.overlap)
        found: list[PassageSpan | None] = [None] * len(windows)
        lengths = [len(window.ids) for window in windows]
        for rows in token_budget_batches(lengths, self._batch_tokens, model.pad_multiple):
            batch = [windows[row] for row in rows]
            padded = pad_windows(batch, model.pad_id, model.pad_multiple, model.pad_left)
            logits = self._forward(padded.batch)
            spans = window_spans(batch, passages, padded, logits, self._config.max_answer_tokens)
            for row, span in zip(rows, spans, strict=True):
                found[row] = span
        return passage_spans(windows, found, len(pairs))

    def _forward(self, batch: PairBatch) -> SpanLogits:
        name, precision = self._model.name, self._model.precision
        logits = self._model.engine.forward(batch)
        expected = batch.input_ids.shape
        if logits.start.shape != expected or logits.end.shape != expected:
            raise ModelError(
                f"model {name!r} returned shapes {logits.start.shape} and {logits.end.shape}, expected {expected}"
            )
        if not (np.isfinite(logits.start).all() and np.isfinite(logits.end).all()):
            raise ModelError(
                f"model {name!r} returned NaN or infinite logits at precision={precision}: try precision=float32"
            )
        return logits
