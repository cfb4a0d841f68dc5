"""Tandem's embedding and its peers, each ready to embed and index a list of chunks; loading and warming up come first.

All get the same chunks. What a peer does besides embedding (its index, LangChain's document store) is part of its time,
as it is part of Tandem's job.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ray_jobs.models.batching import pad, token_budget_batches
from ray_jobs.models.embedder import Embedder, EmbedderConfig, choose_engine
from ray_jobs.models.engine import TokenBatch
from ray_jobs.models.loading import Encoder, load_encoder
from ray_jobs.models.resolve import resolve

Vectors = npt.NDArray[np.float32]
BATCH_SIZES = (8, 16, 32, 64, 128)


class Contender(Protocol):
    """One way to embed and index chunks."""

    name: str

    def timed(self, texts: Sequence[str]) -> tuple[float, Vectors]:
        """Seconds taken, and the vectors (n, d) float32 of `texts`."""
        ...


class Tandem:
    """Tandem's embedder as the ingest job uses it."""

    def __init__(self, encoder: Encoder, config: EmbedderConfig) -> None:
        self.embedder = Embedder(encoder, config)
        self.name = f"Tandem's embedder ({encoder.engine_name} {encoder.precision})"

    def timed(self, texts: Sequence[str]) -> tuple[float, Vectors]:
        """Embed and round to float16, as stored."""
        started = time.perf_counter()
        vectors = self.embedder.encode_documents(texts).astype(np.float16)
        return time.perf_counter() - started, vectors.astype(np.float32)


class BareForward:
    """The forward pass alone on Tandem's batches: what no pipeline over this engine can exceed."""

    def __init__(self, encoder: Encoder, max_tokens: int) -> None:
        self.encoder = encoder
        self.max_tokens = max_tokens
        self.name = "(d) bare forward pass, same engine and batches"

    def timed(self, texts: Sequence[str]) -> tuple[float, Vectors]:
        """Only the engine is timed; tokenising and batching came before."""
        encoder = self.encoder
        ids = encoder.tokens.ids(list(texts), self.max_tokens)
        groups = token_budget_batches([len(row) for row in ids], encoder.batch_tokens, encoder.pad_multiple)
        batches = [
            TokenBatch(*pad([ids[i] for i in rows], encoder.spec.pad_id, encoder.pad_multiple, encoder.spec.pad_left))
            for rows in groups
        ]
        with ThreadPoolExecutor(encoder.engine.parallel) as streams:
            started = time.perf_counter()
            parts = list(streams.map(encoder.engine.forward, batches))
            seconds = time.perf_counter() - started
        vectors = np.empty((len(texts), encoder.spec.dimension), np.float32)
        vectors[[i for rows in groups for i in rows]] = np.concatenate(parts)
        return seconds, vectors


class SentenceTransformers:
    """`SentenceTransformer.encode` and one FAISS index: as it comes, or in bfloat16 with the batch size given."""

    def __init__(self, name: str, path: str, bfloat16: bool = False, batch_size: int | None = None) -> None:
        from sentence_transformers import SentenceTransformer

        self.name = name
        self._model: Any = SentenceTransformer(path, device="cpu")
        if bfloat16:
            self._model.bfloat16()
        self._options: dict[str, Any] = {} if batch_size is None else {"batch_size": batch_size}

    def timed(self, texts: Sequence[str]) -> tuple[float, Vectors]:
        """Encode all at once (the library sorts by length itself) and add to an exact index."""
        import faiss

        started = time.perf_counter()
        vectors = np.asarray(self._model.encode(list(texts), show_progress_bar=False, **self._options), np.float32)
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        return time.perf_counter() - started, vectors


class LangChain:
    """LangChain's FAISS vector store from the same chunks, with its Hugging Face embeddings."""

    def __init__(self, path: str) -> None:
        from langchain_huggingface import HuggingFaceEmbeddings

        self.name = "(c) LangChain FAISS.from_texts"
        self._embeddings = HuggingFaceEmbeddings(model_name=path, model_kwargs={"device": "cpu"})

    def timed(self, texts: Sequence[str]) -> tuple[float, Vectors]:
        """Embed, index and store the texts."""
        from langchain_community.vectorstores import FAISS

        started = time.perf_counter()
        store = FAISS.from_texts(list(texts), self._embeddings)
        seconds = time.perf_counter() - started
        return seconds, store.index.reconstruct_n(0, store.index.ntotal)


def contenders(sample: Sequence[str]) -> tuple[Tandem, BareForward, list[Contender]]:
    """Tandem, the limit, and the peers, warm; `sample` is what (b)'s batch size is chosen on."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    config = choose_engine(EmbedderConfig())
    encoder = load_encoder(config)
    tandem = Tandem(encoder, config)
    limit = BareForward(encoder, tandem.embedder.max_tokens)
    path = str(resolve(config.model).path)
    plain = SentenceTransformers("(a) SentenceTransformer.encode as it comes + FAISS", path)
    peers: list[Contender] = [plain, _best(path, sample), LangChain(path)]
    everyone: list[Contender] = [tandem, limit, *peers]
    for contender in everyone:
        contender.timed(sample[:8])
    return tandem, limit, peers


def _best(path: str, sample: Sequence[str]) -> SentenceTransformers:
    """sentence-transformers in bfloat16 with whichever batch size was fastest on `sample`."""
    rates: dict[int, float] = {}
    for size in BATCH_SIZES:
        tried = SentenceTransformers("", path, bfloat16=True, batch_size=size)
        tried.timed(sample[:8])
        rates[size] = len(sample) / tried.timed(sample)[0]
    size = max(rates, key=rates.__getitem__)
    name = f"(b) sentence-transformers, torch bfloat16, sorted, batches of {size} + FAISS"
    return SentenceTransformers(name, path, bfloat16=True, batch_size=size)
