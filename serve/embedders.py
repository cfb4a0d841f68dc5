"""The embedders of a replica: one for each model that an index it serves was made with, loaded once.

Guaranteed: safe to call from several threads; two indices of one model share an embedder. Not guaranteed: a bound on
memory other than the number of models.
"""

from __future__ import annotations

import threading

from ray_jobs.models.embedder import Embedder, EmbedderConfig, EmbedderIdentity
from ray_jobs.models.for_queries import load_for_queries
from ray_jobs.storage import Storage
from serve.messages import EmbedCall, EmbedReply


class Embedders:
    """Embedders by model; `config` says how to run them, None as the index was made.

    `store` is the one whose models count, if any.
    """

    def __init__(self, config: EmbedderConfig | None, store: Storage | None = None) -> None:
        self._config = config
        self._store = store
        self._loaded: dict[tuple[str, str], Embedder] = {}
        self._lock = threading.Lock()

    def __call__(self, identity: EmbedderIdentity) -> Embedder:
        """The embedder for queries of an index that `identity` made; loading one blocks.

        Raises UsageError when the configuration names another model, ModelError when it cannot be loaded.
        """
        key = (identity.model, identity.revision)
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = load_for_queries(self._config, identity, self._store)
            return self._loaded[key]


def embed(embedder: Embedder, call: EmbedCall) -> EmbedReply:
    """Vectors of the texts of a call, as queries or as documents."""
    encode = embedder.encode_queries if call.kind == "query" else embedder.encode_documents
    lengths = map(len, embedder.tokenizer.offsets(list(call.texts)))
    tokens = sum(min(length + embedder.tokenizer.special_tokens, embedder.max_tokens) for length in lengths)
    return EmbedReply(embedder.identity.model, encode(list(call.texts)), tokens)
