"""A deterministic embedder for tests: no weights, no torch, starts at once.

Guaranteed: equal texts have equal vectors on every machine; texts that share words are closer than texts that share
none, on average; a text is never the zero vector. Not guaranteed: any notion of meaning.
"""

from __future__ import annotations

import hashlib
import re

import numpy as np
from numpy.typing import NDArray

from ray_jobs.models.engine import EncoderSpec, TokenBatch

FAKE_NAME = "fake"
FAKE_REVISION = "fake-1"
FAKE_SPEC = EncoderSpec(
    dimension=64,
    max_tokens=256,
    position_limit=1 << 20,
    normalized=True,
    similarity="cosine",
    query_prompt="",
    document_prompt="",
    pad_id=0,
    pad_left=False,
    segments=False,
    pools_prompt=True,
)
_START, _END = 1, 2
# One token is a Han, Kana or Hangul character, a run of other word characters, or one mark.
_TOKEN = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+|[^\w\s]"
)


class FakeTokenizer:
    """Words, and single characters of languages written without spaces; ids are hashes of the case-folded token."""

    special_tokens = 2

    def ids(self, texts: list[str], max_tokens: int) -> list[NDArray[np.int64]]:
        """Token ids of each text between a start and an end token, cut to `max_tokens`."""
        room = max(0, max_tokens - self.special_tokens)
        return [np.array([_START, *map(_hash, _TOKEN.findall(t)[:room]), _END], dtype=np.int64) for t in texts]

    def prefix(self, prompt: str) -> int:
        """The start token and those of the prompt."""
        return len(_TOKEN.findall(prompt)) + 1

    def offsets(self, texts: list[str]) -> list[list[tuple[int, int]]]:
        """Code-point span of each token of each text, without the start and end tokens."""
        return [[match.span() for match in _TOKEN.finditer(text)] for text in texts]


class FakeEngine:
    """Sums one pseudo-random vector a token: a bag of words."""

    parallel = 1

    def forward(self, batch: TokenBatch) -> NDArray[np.float32]:
        """Unit vectors, float32 of shape (rows, 64)."""
        columns = np.arange(FAKE_SPEC.dimension, dtype=np.uint64)
        mixed = batch.input_ids.astype(np.uint64)[..., None] * np.uint64(0x9E3779B97F4A7C15) + columns
        # The finaliser of SplitMix64 (Steele, Lea and Flood 2014): neighbouring inputs, unrelated outputs.
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        values = (mixed >> np.uint64(40)).astype(np.float64) / (1 << 23) - 1.0
        # Start and end weigh little: they only keep a text without words from being the zero vector.
        weights = np.where(batch.input_ids > _END, 1.0, 0.01) * batch.attention_mask
        pooled = (values * weights[..., None]).sum(axis=1)
        unit: NDArray[np.float32] = (pooled / np.linalg.norm(pooled, axis=1, keepdims=True)).astype(np.float32)
        return unit


def _hash(token: str) -> int:
    digest = hashlib.blake2b(token.casefold().encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") + _END + 1
