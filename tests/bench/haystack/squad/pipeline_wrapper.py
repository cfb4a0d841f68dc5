"""A hybrid pipeline as Haystack's own guides build it, over the chunks and vectors of Tandem's index."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from hayhooks import BasePipelineWrapper
from haystack import Document, Pipeline
from haystack.components.joiners import DocumentJoiner
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack_integrations.components.embedders.sentence_transformers import SentenceTransformersTextEmbedder

from ray_jobs.index.snapshot import Snapshot
from ray_jobs.models.resolve import resolve
from ray_jobs.storage import open_storage


class PipelineWrapper(BasePipelineWrapper):
    """POST /squad/run {"query"}."""

    def setup(self) -> None:
        """Fill the store and connect the parts."""
        snapshot = Snapshot.open(open_storage(os.environ["PEER_STORE"]), os.environ["PEER_INDEX"])
        documents = InMemoryDocumentStore(embedding_similarity_function="cosine")
        for shard in snapshot.partition.shards.values():
            rows = shard.rows.take(np.arange(len(shard.rows)))
            vectors = shard.dense.vectors.astype(np.float32).tolist()
            documents.write_documents(
                [
                    Document(content=row["text"], embedding=vector, meta={"doc_id": row["doc_id"]})
                    for row, vector in zip(rows, vectors, strict=True)
                ]
            )
        model = str(resolve(snapshot.manifest.embedder.model).path)
        pipeline = Pipeline()
        pipeline.add_component("embedder", SentenceTransformersTextEmbedder(model=model, progress_bar=False))
        pipeline.add_component("dense", InMemoryEmbeddingRetriever(documents, top_k=10))
        pipeline.add_component("lexical", InMemoryBM25Retriever(documents, top_k=10))
        pipeline.add_component("joiner", DocumentJoiner(join_mode="reciprocal_rank_fusion", top_k=10))
        pipeline.connect("embedder.embedding", "dense.query_embedding")
        pipeline.connect("dense", "joiner")
        pipeline.connect("lexical", "joiner")
        self.pipeline = pipeline

    def run_api(self, query: str) -> list[dict[str, Any]]:
        """Hits with their text."""
        found = self.pipeline.run({"embedder": {"text": query}, "lexical": {"query": query}})
        return [{"score": item.score, "text": item.content, **item.meta} for item in found["joiner"]["documents"]]
