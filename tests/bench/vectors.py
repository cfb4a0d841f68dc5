"""Real embeddings for the search benchmark: chunks of technical documentation, made once, kept in .cache.

    python tests/bench/vectors.py --count 200000

Resumable: a block of documents is written whole or not at all, and blocks that exist are not made again.
Chunks are of at most 128 tokens: half the work a vector, and vectors of real text all the same.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from corpora import CACHE, MissingDataError, Passage, documentation, fingerprint

from ray_jobs.corpus.chunking import Chunker, ChunkingConfig
from ray_jobs.corpus.document import Document, RawDocument, make_document
from ray_jobs.ingest.embed import group_schema
from ray_jobs.models.embedder import Embedder, EmbedderConfig, choose_engine

CHUNKING = ChunkingConfig(max_tokens=128, overlap_tokens=0, min_tokens=32)
FOLDER = CACHE / "documentation-128"
BLOCK_DOCUMENTS = 256
HELD_OUT = 50  # one document in so many gives queries and is not indexed
QUERIES = 2_000

Vectors = npt.NDArray[np.float16]


def make(count: int) -> int:
    """Make blocks until there are `count` vectors; returns how many there are."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    embedder = Embedder.load(choose_engine(EmbedderConfig()))
    chunker = Chunker(CHUNKING, embedder.tokenizer, embedder.max_tokens)
    indexed = (passage for passage in documentation() if not _held_out(passage))
    total, started, made = 0, time.monotonic(), 0
    for number, passages in enumerate(_batched(indexed, BLOCK_DOCUMENTS)):
        path = FOLDER / f"block-{number:05d}.f16"
        if not path.exists():
            made += _make_block(path, passages, embedder, chunker)
            print(f"{path.name}: {made / (time.monotonic() - started):.0f} chunks/s", file=sys.stderr, flush=True)
        total += path.stat().st_size // (2 * embedder.dimension)
        if total >= count:
            break
    return total


def load(count: int, dimension: int) -> tuple[Vectors, pa.Table]:
    """The first `count` vectors (count, d) and their rows, as many as there are."""
    blocks = sorted(FOLDER.glob("block-*.f16"))
    parts: list[Vectors] = []
    tables: list[pa.Table] = []
    found = 0
    for path in blocks:
        if found >= count:
            break
        vectors = np.fromfile(path, np.float16).reshape(-1, dimension)[: count - found]
        tables.append(
            pa.ipc.open_file(pa.memory_map(str(path.with_suffix(".arrow")))).read_all().slice(0, len(vectors))
        )
        parts.append(vectors)
        found += len(vectors)
    if not parts:
        return np.empty((0, dimension), np.float16), group_schema({}).empty_table()
    return np.concatenate(parts), pa.concat_tables(tables)


def queries(embedder: Embedder) -> npt.NDArray[np.float32]:
    """Vectors (n, d) of sentences from documents that are not indexed, a few a document."""
    path = FOLDER / "queries.f32"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        sentences = islice(_sentences(filter(_held_out, documentation())), QUERIES)
        _publish(path, embedder.encode_queries(list(sentences)).tobytes())
    return np.fromfile(path, np.float32).reshape(-1, embedder.dimension)


def _make_block(path: Path, passages: tuple[Passage, ...], embedder: Embedder, chunker: Chunker) -> int:
    documents = [
        make_document(RawDocument(text=item.text, title=item.title), item.id, "docs_corpus", "parquet")
        for item in passages
    ]
    records, texts = _rows(documents, chunker)
    with pa.OSFile(f"{path}.arrow.partial", "wb") as sink, pa.ipc.new_file(sink, group_schema({})) as writer:
        writer.write_table(pa.Table.from_pylist(records, schema=group_schema({})))
    os.replace(f"{path}.arrow.partial", path.with_suffix(".arrow"))
    _publish(path, embedder.encode_documents(texts).astype(np.float16).tobytes())
    return len(texts)


def _rows(documents: list[Document], chunker: Chunker) -> tuple[list[dict[str, object]], list[str]]:
    records: list[dict[str, object]] = []
    texts: list[str] = []
    for document, chunks in zip(documents, chunker.chunk_all(documents), strict=True):
        for chunk in chunks:
            texts.append(chunk.embedded_text)
            records.append(
                {
                    "doc_id": document.doc_id,
                    "version": document.version,
                    "ordinal": chunk.ordinal,
                    "start": chunk.start,
                    "end": chunk.end,
                    "page": chunk.page,
                    "page_breaks": [],
                    "heading": " > ".join(chunk.heading),
                    "title": document.title,
                    "text": chunk.text,
                    "source": document.source,
                    "metadata": {},
                    "lexical_text": chunk.embedded_text,
                }
            )
    return records, texts


def _held_out(passage: Passage) -> bool:
    return (fingerprint(passage.id) >> 8) % HELD_OUT == 0


def _sentences(passages: Iterator[Passage]) -> Iterator[str]:
    """Several sentences of running text from each document, far apart."""
    for passage in passages:
        found = [
            " ".join(sentence.split())
            for sentence in re.split(r"(?<=[.!?])\s+|\n\s*\n", passage.text)
            if 6 <= len(sentence.split()) <= 40
            and sum(c.isalpha() or c.isspace() for c in sentence) > 0.9 * len(sentence)
        ]
        yield from found[:: max(1, len(found) // 3)][:3]


def _batched(passages: Iterator[Passage], size: int) -> Iterator[tuple[Passage, ...]]:
    while part := tuple(islice(passages, size)):
        yield part


def _publish(path: Path, data: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    os.replace(partial, path)


def main() -> int:
    """Make the vectors that the search benchmark will want."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--count", type=int, default=200_000)
    try:
        print(f"{make(parser.parse_args().count):,} vectors in {FOLDER}")
    except MissingDataError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
