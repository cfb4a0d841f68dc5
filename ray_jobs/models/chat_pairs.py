"""Pairs of a language model that reranks: its chat template writes query and text, sentence-transformers renders it.

Guaranteed: the ids that sentence-transformers would give to a pair that fits; one that does not fit loses the end of
its text, while template and query stay whole. Not guaranteed: the last few tokens that would still have fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from ray_jobs.errors import ModelError
from ray_jobs.models.pairs import Pair, PairIds
from ray_jobs.models.tokenizer import FastTokenizer

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

_WHOLE = {"text": {"truncation": False, "verbose": False}}


class ChatPairs:
    """Token ids of rendered pairs. Safe to call from several threads."""

    def __init__(self, model: CrossEncoder, name: str, prompt: str) -> None:
        """Raises ModelError when the template does not take a query and a document."""
        self._transformer = model[0]
        self._prompt = prompt or None
        self._tokens = FastTokenizer(model.tokenizer.backend_tokenizer.to_str())
        # Rendering sets the length to cut at and the padding in the one tokeniser of the model.
        self._lock = Lock()
        try:
            self.overhead("query")
        except ValueError as error:
            raise ModelError(
                f"model {name!r}: its chat template does not write a message of role query and one of role document: "
                "give it one that does, or choose another model"
            ) from error

    def overhead(self, query: str) -> int:
        """Tokens that a pair with this query has besides those of the text: template, prompt and query."""
        (rendered,) = self._render([(query, "")])
        return len(rendered.ids)

    def pairs(self, pairs: Sequence[Pair], max_tokens: int) -> list[PairIds]:
        """Tokens of each pair, at most `max_tokens` each; the overhead of every query must be below `max_tokens`."""
        overheads = {query: self.overhead(query) for query, _ in dict.fromkeys(pairs)}
        spans = self._tokens.offsets([text for _, text in pairs])
        rooms = [max_tokens - overheads[query] for query, _ in pairs]
        while True:
            cut = [
                (query, text if len(span) <= room else text[: span[room - 1][1] if room > 0 else 0])
                for (query, text), span, room in zip(pairs, spans, rooms, strict=True)
            ]
            rendered = self._render(cut)
            excess = [max(0, len(row.ids) - max_tokens) for row in rendered]
            if not any(excess):
                return rendered
            # A text's tokens may be others beside the template's than alone.
            rooms = [
                min(room, len(span)) - more if more else room
                for room, span, more in zip(rooms, spans, excess, strict=True)
            ]

    def _render(self, pairs: Sequence[Pair]) -> list[PairIds]:
        with self._lock:
            features = self._transformer.preprocess(
                [list(pair) for pair in pairs], prompt=self._prompt, processing_kwargs=_WHOLE
            )
        rows = zip(features["input_ids"].numpy(), features["attention_mask"].numpy() == 1, strict=True)
        return [PairIds(ids[own].astype(np.int64), np.zeros(int(own.sum()), dtype=np.int64)) for ids, own in rows]
