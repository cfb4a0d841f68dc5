"""Text in, vectors out: tokenise ahead, batch by length, run the engine, check and shape what comes back.

Guaranteed: row i of the result belongs to text i; vectors are float32, finite, and L2-normalised when the model's
similarity is cosine; the model's own pooling, prompts and maximum length are used. Texts longer than the maximum are
cut, as sentence-transformers does. Not guaranteed: bits that are the same when a text shares its batch with others
(the differences are those of the engine's rounding).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from ray_jobs.errors import ModelError
from ray_jobs.models.batching import pad, token_budget_batches, windows_by_length
from ray_jobs.models.embedder_config import EmbedderConfig
from ray_jobs.models.embedder_identity import EmbedderIdentity, check_compatible
from ray_jobs.models.engine import EncoderSpec, Engine, TokenBatch, TokenIds
from ray_jobs.models.engine_choice import choose_engine
from ray_jobs.models.loading import Encoder, load_encoder
from ray_jobs.models.token_limit import batch_budget, tokens_read
from ray_jobs.storage import Storage

__all__ = ["Embedder", "EmbedderConfig", "EmbedderIdentity", "check_compatible", "choose_engine"]

# Texts tokenised at a time while the window before them runs.
_WINDOW = 512
# A batch and the positions of its rows among the texts.
_Rows = tuple[list[int], TokenBatch]


class DocumentTokenizer:
    """The chunker's view of the embedder's tokens.

    `special_tokens` counts everything that is added to a document: special tokens and the document prompt, so that a
    chunk of `max_tokens - special_tokens` tokens is never cut.
    """

    def __init__(self, tokens: TokenIds, document_prompt: str) -> None:
        self._tokens = tokens
        prompt = len(tokens.offsets([document_prompt])[0]) if document_prompt else 0
        self.special_tokens = tokens.special_tokens + prompt

    def offsets(self, texts: list[str]) -> list[list[tuple[int, int]]]:
        """Code-point span of each token of each text, without special tokens, never cut."""
        return self._tokens.offsets(texts)


class Embedder:
    """One loaded model. Safe to call from several threads."""

    def __init__(self, encoder: Encoder, config: EmbedderConfig) -> None:
        self._engine: Engine = encoder.engine
        self._tokens: TokenIds = encoder.tokens
        self._spec: EncoderSpec = encoder.spec
        self._pad_multiple = encoder.pad_multiple
        spec = encoder.spec
        self.max_tokens = tokens_read(config.max_tokens, spec.max_tokens, spec.position_limit, config.model)
        self._batch_tokens = batch_budget(config.batch_tokens, encoder.batch_tokens, self.max_tokens, encoder.name)
        self.tokenizer = DocumentTokenizer(encoder.tokens, encoder.spec.document_prompt)
        self.identity = EmbedderIdentity(
            model=encoder.name,
            revision=encoder.revision,
            engine=encoder.engine_name,
            precision=encoder.precision,
            dimension=encoder.spec.dimension,
            max_tokens=self.max_tokens,
            normalized=encoder.spec.normalized or encoder.spec.similarity == "cosine",
            similarity=encoder.spec.similarity,
            query_prompt=encoder.spec.query_prompt,
            document_prompt=encoder.spec.document_prompt,
        )

    @classmethod
    def load(cls, config: EmbedderConfig, store: Storage | None = None) -> Embedder:
        """Find the model and start its engine; `auto` choices are made first.

        `store` is the one whose models count, if any. Raises NotFoundError when no place has the model, ModelError when
        it cannot be loaded, UsageError when the configuration does not suit it.
        """
        return cls(load_encoder(choose_engine(config, store), store), config)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._spec.dimension

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of passages, float32 of shape (texts, dimension), with the model's document prompt."""
        return self._encode(texts, self._spec.document_prompt)

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of questions, float32 of shape (texts, dimension), with the model's query prompt."""
        return self._encode(texts, self._spec.query_prompt)

    def _encode(self, texts: Sequence[str], prompt: str) -> NDArray[np.float32]:
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        for rows, part in self._forwards(self._batches(texts, prompt)):
            vectors[rows] = part
        if self.identity.normalized:
            # Again even where the model normalises: in bfloat16 its lengths are only about 1.
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
        return vectors

    def _forwards(self, batches: Iterator[_Rows]) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
        """Run as many batches side by side as the engine takes, with the next ones waiting at its door."""
        with ThreadPoolExecutor(self._engine.parallel, thread_name_prefix="forward") as streams:
            running: deque[tuple[list[int], Future[NDArray[np.float32]]]] = deque()
            for rows, batch in batches:
                running.append((rows, streams.submit(self._forward, batch)))
                if len(running) > 2 * self._engine.parallel:
                    done, vectors = running.popleft()
                    yield done, vectors.result()
            for done, vectors in running:
                yield done, vectors.result()

    def _batches(self, texts: Sequence[str], prompt: str) -> Iterator[_Rows]:
        prompt_tokens = self._tokens.prefix(prompt) if prompt else 0
        windows = list(windows_by_length(texts, _WINDOW))
        if len(windows) <= 1:
            for window in windows:
                yield from self._tokenize(window, texts, prompt, prompt_tokens)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="tokenize") as ahead:
            pending = ahead.submit(self._tokenize, windows[0], texts, prompt, prompt_tokens)
            for following in windows[1:]:
                ready = pending.result()
                pending = ahead.submit(self._tokenize, following, texts, prompt, prompt_tokens)
                yield from ready
            yield from pending.result()

    def _tokenize(self, window: list[int], texts: Sequence[str], prompt: str, prompt_tokens: int) -> list[_Rows]:
        ids = self._tokens.ids([prompt + texts[i] for i in window], self.max_tokens)
        if len(ids) != len(window):
            raise ModelError(f"tokenizer of {self.identity.model!r} returned {len(ids)} texts for {len(window)}")
        batches = []
        for rows in token_budget_batches([len(row) for row in ids], self._batch_tokens, self._pad_multiple):
            padded, mask = pad([ids[r] for r in rows], self._spec.pad_id, self._pad_multiple, self._spec.pad_left)
            batches.append(([window[r] for r in rows], TokenBatch(padded, mask, prompt_tokens)))
        return batches

    def _forward(self, batch: TokenBatch) -> NDArray[np.float32]:
        vectors = self._engine.forward(batch)
        expected = (len(batch.input_ids), self.dimension)
        if vectors.shape != expected:
            raise ModelError(f"model {self.identity.model!r} returned shape {vectors.shape}, expected {expected}")
        if not np.isfinite(vectors).all():
            raise ModelError(
                f"model {self.identity.model!r} returned NaN or infinite values at precision="
                f"{self.identity.precision}: try precision=float32"
            )
        return vectors
