"""The model's own fast tokeniser, for pairs of a query and a text.

Guaranteed: the ids and segments that sentence-transformers would give to a pair that fits, with the model's prompt
before the query; a pair that does not fit loses the end of its text only (sentence-transformers would cut a long query
too). Not guaranteed: that special tokens written in a text are taken as text; the tokeniser decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import numpy as np
from tokenizers import Tokenizer

from ray_jobs.models.pairs import Pair, PairIds


class PairTokenizer:
    """Token ids of pairs. Safe to call from several threads."""

    def __init__(self, serialized: str, prompt: str) -> None:
        """`serialized` is the content of a `tokenizer.json`; `prompt` goes before every query."""
        self._whole = Tokenizer.from_str(serialized)
        self._whole.no_padding()
        self._whole.no_truncation()
        self._cutting = Tokenizer.from_str(serialized)
        self._cutting.no_padding()
        self._prompt = prompt
        self._max_tokens: int | None = None
        self._lock = Lock()

    def overhead(self, query: str) -> int:
        """Tokens that a pair with this query has besides those of the text: query, prompt and special tokens."""
        encoding = self._whole.encode(self._prompt + query, add_special_tokens=False)
        return len(encoding.ids) + int(self._whole.num_special_tokens_to_add(True))

    def pairs(self, pairs: Sequence[Pair], max_tokens: int) -> list[PairIds]:
        """Tokens of each pair, at most `max_tokens` each; the overhead of every query must be below `max_tokens`."""
        with self._lock:
            # The length lies in the tokeniser itself, so it must not change while another thread tokenises.
            if max_tokens != self._max_tokens:
                self._cutting.enable_truncation(max_tokens, strategy="only_second")
                self._max_tokens = max_tokens
            encodings = self._cutting.encode_batch_fast([(self._prompt + query, text) for query, text in pairs])
        return [
            PairIds(np.array(encoding.ids, dtype=np.int64), np.array(encoding.type_ids, dtype=np.int64))
            for encoding in encodings
        ]
