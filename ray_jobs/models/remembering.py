"""An embedder that remembers the vectors of texts it has seen: questions come again and again to the same passages.

Guaranteed: a text that is remembered has the vector that it had before; memory is bounded by the number of texts; safe
to call from several threads. Not guaranteed: that two threads which ask for a new text at once compute it only once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

DEFAULT_TEXTS = 50_000  # 77 MB at 384 dimensions, and the texts themselves


class TextEmbedder(Protocol):
    """What is made to remember."""

    def encode_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Vectors of questions, (n, d)."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Vectors of passages, (n, d)."""
        ...


class RememberingEmbedder:
    """Remembers the vectors of the last `texts` documents; queries are passed on."""

    def __init__(self, embedder: TextEmbedder, texts: int = DEFAULT_TEXTS) -> None:
        self._embedder = embedder
        self._texts = texts
        self._known: OrderedDict[str, npt.NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def encode_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Vectors of questions, (n, d)."""
        return self._embedder.encode_queries(texts)

    def encode_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Vectors of passages, (n, d); only those that are not remembered are computed."""
        with self._lock:
            found = {text: self._known[text] for text in texts if text in self._known}
        new = [text for text in dict.fromkeys(texts) if text not in found]
        if new or not texts:
            vectors = self._embedder.encode_documents(new)
            if len(vectors) != len(new) or not texts:
                return vectors  # a wrong number is for the caller to refuse
            found |= dict(zip(new, vectors, strict=True))
        with self._lock:
            for text in texts:
                self._known[text] = found[text]
                self._known.move_to_end(text)
            while len(self._known) > self._texts:
                self._known.popitem(last=False)
        return np.stack([found[text] for text in texts])
