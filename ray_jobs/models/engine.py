"""What an engine is: the accelerator's part of embedding, with tokens in and vectors out.

Guaranteed by every engine: a row of the output belongs to the same row of the input, whatever the padding. Not
guaranteed: that the output is normalised (the embedder does that), or equal bits from two engines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Similarity = Literal["cosine", "dot"]


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Padded tokens: `input_ids` and `attention_mask` are int64 of shape (rows, tokens).

    `prompt_tokens` counts the tokens of the prompt at the start of each row, which some models leave out of pooling.
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    prompt_tokens: int = 0


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """What a model says of itself, engine apart: kept as JSON beside a converted model, so that torch is not needed.

    `max_tokens` counts special tokens and prompt. `position_limit` is the longest input that the network can take.
    `normalized` tells whether the model's own last module normalises. A prompt is "" when there is none. `segments`
    tells whether the network takes segment ids, `pools_prompt` whether the prompt's tokens are pooled with the text's.
    """

    dimension: int
    max_tokens: int
    position_limit: int
    normalized: bool
    similarity: Similarity
    query_prompt: str
    document_prompt: str
    pad_id: int
    pad_left: bool
    segments: bool
    pools_prompt: bool


class Engine(Protocol):
    """Runs the whole model: transformer, pooling and whatever modules follow.

    `parallel` forwards may run at the same time, from as many threads; more than that wait for their turn.
    """

    @property
    def parallel(self) -> int:
        """How many batches in flight keep the engine busy."""
        ...

    def forward(self, batch: TokenBatch) -> NDArray[np.float32]:
        """Embeddings, float32 of shape (rows of the batch, dimension)."""
        ...


class TokenIds(Protocol):
    """Turns texts into token ids, and tells where tokens lie in a text."""

    def ids(self, texts: list[str], max_tokens: int) -> list[NDArray[np.int64]]:
        """Token ids of each text with special tokens, cut to `max_tokens`."""
        ...

    def prefix(self, prompt: str) -> int:
        """Tokens from the start of a text to the end of `prompt` when the text begins with it."""
        ...

    def offsets(self, texts: list[str]) -> list[list[tuple[int, int]]]:
        """Code-point span of each token of each text, without special tokens, never cut."""
        ...

    @property
    def special_tokens(self) -> int:
        """Tokens added to every text: [CLS] and [SEP], for example."""
        ...
