"""The model's own fast tokeniser, without sentence-transformers around it.

Guaranteed: the ids that sentence-transformers would give, at any length asked for (truncation and padding stored in
`tokenizer.json` are ignored: the default model's file cuts at 128 where the model takes 256). Not guaranteed: segment
ids other than 0.
"""

from __future__ import annotations

from functools import cached_property
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ray_jobs.models.encodable import encodable


class FastTokenizer:
    """Token ids and code-point spans. Safe to call from several threads."""

    def __init__(self, serialized: str) -> None:
        """`serialized` is the content of a `tokenizer.json`."""
        self._serialized = serialized
        self._cutting = self._open()
        self._max_tokens: int | None = None
        self._lock = Lock()

    def ids(self, texts: list[str], max_tokens: int) -> list[NDArray[np.int64]]:
        """Token ids of each text with special tokens, cut to `max_tokens`."""
        with self._lock:
            # The length lies in the tokeniser itself, so it must not change while another thread tokenises.
            if max_tokens != self._max_tokens:
                self._cutting.enable_truncation(max_tokens)
                self._max_tokens = max_tokens
            encodings = self._cutting.encode_batch_fast([encodable(text) for text in texts])
        return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]

    def prefix(self, prompt: str) -> int:
        """Tokens from the start of a text to the end of `prompt` when the text begins with it."""
        encoding = self._whole.encode(prompt)
        trailing = encoding.special_tokens_mask[-1] if encoding.ids else 0
        return len(encoding.ids) - int(trailing)

    def offsets(self, texts: list[str]) -> list[list[tuple[int, int]]]:
        """Code-point span of each token of each text, without special tokens, never cut."""
        readable = [encodable(text) for text in texts]
        return [encoding.offsets for encoding in self._whole.encode_batch(readable, add_special_tokens=False)]

    @property
    def special_tokens(self) -> int:
        """Tokens added to every text: [CLS] and [SEP], for example."""
        count: int = self._cutting.num_special_tokens_to_add(False)
        return count

    @cached_property
    def _whole(self) -> Tokenizer:
        return self._open()

    def _open(self) -> Tokenizer:
        tokenizer = Tokenizer.from_str(self._serialized)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer
