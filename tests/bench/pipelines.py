"""Whole ingestion pipelines, each run by a process of its own: `python pipelines.py NAME CORPUS.jsonl FOLDER`.

Every one reads the same lines of JSON, cuts texts at 256 tokens of the same model with 32 of overlap by its own
splitter, embeds them as its documentation shows, and leaves an index on disk. Prints one line of JSON: chunks, seconds
from the first line read to the last byte written, and seconds that loading the model took before.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOKENS, OVERLAP = 256, 32
Run = Callable[[], int]  # returns the number of chunks


def _model() -> str:
    from ray_jobs.models.embedder import EmbedderConfig
    from ray_jobs.models.resolve import resolve

    return str(resolve(EmbedderConfig().model).path)


def _rows(corpus: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in corpus.read_text(encoding="utf-8").splitlines()]


def _whole(row: dict[str, str]) -> str:
    return f"{row['title']}\n{row['text']}"


def langchain(corpus: Path, folder: Path) -> Run:
    """LangChain: recursive splitter, Hugging Face embeddings, FAISS."""
    from langchain_community.vectorstores import FAISS
    from langchain_core.documents import Document
    from langchain_huggingface import HuggingFaceEmbeddings
    from langchain_text_splitters import RecursiveCharacterTextSplitter
    from transformers import AutoTokenizer

    path = _model()
    embeddings = HuggingFaceEmbeddings(model_name=path, model_kwargs={"device": "cpu"})
    splitter = RecursiveCharacterTextSplitter.from_huggingface_tokenizer(
        AutoTokenizer.from_pretrained(path), chunk_size=TOKENS, chunk_overlap=OVERLAP
    )

    def run() -> int:
        documents = [Document(page_content=_whole(row), metadata={"id": row["id"]}) for row in _rows(corpus)]
        chunks = splitter.split_documents(documents)
        FAISS.from_documents(chunks, embeddings).save_local(str(folder))
        return len(chunks)

    return run


def llamaindex(corpus: Path, folder: Path) -> Run:
    """LlamaIndex: an ingestion pipeline into an index over FAISS."""
    import faiss
    from llama_index.core import Document, StorageContext, VectorStoreIndex
    from llama_index.core.ingestion import IngestionPipeline
    from llama_index.core.node_parser import SentenceSplitter
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding
    from llama_index.vector_stores.faiss import FaissVectorStore
    from transformers import AutoTokenizer

    path = _model()
    embedder = HuggingFaceEmbedding(model_name=path, device="cpu")
    tokenizer = AutoTokenizer.from_pretrained(path)
    splitter = SentenceSplitter(chunk_size=TOKENS, chunk_overlap=OVERLAP, tokenizer=tokenizer.tokenize)

    def run() -> int:
        documents = [Document(text=_whole(row), doc_id=row["id"]) for row in _rows(corpus)]
        nodes = IngestionPipeline(transformations=[splitter, embedder]).run(documents=documents)
        store = FaissVectorStore(faiss_index=faiss.IndexFlatIP(len(nodes[0].embedding)))
        context = StorageContext.from_defaults(vector_store=store)
        VectorStoreIndex(nodes, storage_context=context, embed_model=embedder)
        context.persist(persist_dir=str(folder))
        return len(nodes)

    return run


def haystack(corpus: Path, folder: Path) -> Run:
    """Haystack: splitter, embedder and writer as a pipeline into its document store."""
    from haystack import Document, Pipeline
    from haystack.components.preprocessors import RecursiveDocumentSplitter
    from haystack.components.writers import DocumentWriter
    from haystack.document_stores.in_memory import InMemoryDocumentStore
    from haystack.utils import ComponentDevice
    from haystack_integrations.components.embedders.sentence_transformers import SentenceTransformersDocumentEmbedder

    embedder: Any = SentenceTransformersDocumentEmbedder(
        model=_model(), device=ComponentDevice.from_str("cpu"), progress_bar=False
    )
    embedder.warm_up()
    store = InMemoryDocumentStore()
    pipeline = Pipeline()
    # It counts words: 0.75 of a token each, by the rule of thumb in its documentation.
    words = {"split_length": TOKENS * 3 // 4, "split_overlap": OVERLAP * 3 // 4, "split_unit": "word"}
    pipeline.add_component("splitter", RecursiveDocumentSplitter(**words))
    pipeline.add_component("embedder", embedder)
    pipeline.add_component("writer", DocumentWriter(store))
    pipeline.connect("splitter", "embedder")
    pipeline.connect("embedder", "writer")

    def run() -> int:
        documents = [Document(id=row["id"], content=_whole(row)) for row in _rows(corpus)]
        pipeline.run({"splitter": {"documents": documents}})
        folder.mkdir(exist_ok=True)
        store.save_to_disk(str(folder / "store.json"))
        return int(store.count_documents())

    return run


PEERS: dict[str, Callable[[Path, Path], Run]] = {
    "LangChain": langchain,
    "LlamaIndex": llamaindex,
    "Haystack": haystack,
}


def main() -> None:
    """Run one."""
    name, corpus, folder = sys.argv[1:]
    started = time.perf_counter()
    run = PEERS[name](Path(corpus), Path(folder))
    loaded = time.perf_counter()
    chunks = run()
    print(json.dumps({"chunks": chunks, "seconds": time.perf_counter() - loaded, "load": loaded - started}))


if __name__ == "__main__":
    main()
