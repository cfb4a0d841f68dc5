"""Builds a snapshot from vectors and texts without an ingest job, for tests of the index alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa

from ray_jobs.corpus import metadata as md
from ray_jobs.index import layout
from ray_jobs.index.factory import IndexType, training_size
from ray_jobs.index.ladder import Wanted, choose
from ray_jobs.index.manifest import Counts, FileRecord, LexicalRecord, MadeBy, Manifest, ShardRecord, TemplateRecord
from ray_jobs.index.shard import publish_shard, write_shard
from ray_jobs.index.template import default_nprobe, train
from ray_jobs.ingest.embed import group_schema
from ray_jobs.models.embedder import EmbedderIdentity
from ray_jobs.storage import Storage, sha256_of

DIMENSION = 8
WORDS = ("apple", "pear", "plum", "fig", "date", "kiwi", "lime")


@dataclass(frozen=True)
class SmallDocument:
    """A document as its chunks: a text and a vector each."""

    doc_id: str
    chunks: Sequence[tuple[str, Sequence[float]]]
    metadata: dict[str, md.Value] = field(default_factory=dict)


def identity(dimension: int) -> EmbedderIdentity:
    return EmbedderIdentity(
        model="small",
        revision="r1",
        engine="fake",
        precision="float32",
        dimension=dimension,
        max_tokens=128,
        normalized=False,
        similarity="dot",
        query_prompt="",
        document_prompt="",
    )


class VectorEmbedder:
    """Queries that are their own vectors, written as numbers."""

    def __init__(self, dimension: int) -> None:
        self.identity = identity(dimension)

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        vectors = [[float(number) for number in text.split("|")[0].split()] for text in texts]
        return np.array(vectors, np.float32).reshape(len(texts), self.identity.dimension)


def make_documents(seed: int, count: int, distinct: int) -> list[SmallDocument]:
    """Documents of one to three chunks; with few distinct vectors and words, so that scores tie."""
    rng = np.random.default_rng(seed)
    pool = rng.integers(-3, 4, (distinct, DIMENSION)).astype(float)
    documents = []
    for number in rng.permutation(count):
        chunks = [
            (" ".join(rng.choice(WORDS, int(rng.integers(1, 5)))), pool[int(rng.integers(distinct))].tolist())
            for _ in range(int(rng.integers(1, 4)))
        ]
        documents.append(SmallDocument(f"d{number:03d}", chunks, {"year": int(rng.integers(2000, 2010))}))
    return documents


def make_queries(seed: int, count: int) -> list[str]:
    """Queries that are vectors and words at once, for `VectorEmbedder`."""
    rng = np.random.default_rng(seed + 1)
    return [
        " ".join(str(number) for number in rng.integers(-3, 4, DIMENSION)) + "| " + " ".join(rng.choice(WORDS, 2))
        for _ in range(count)
    ]


def rows_table(documents: Sequence[SmallDocument], schema: md.Schema) -> pa.Table:
    rows = []
    for document in documents:
        start = 0
        for ordinal, (text, _) in enumerate(document.chunks):
            rows.append(
                {
                    "doc_id": document.doc_id,
                    "version": blake2b(document.doc_id.encode(), digest_size=16).digest(),
                    "ordinal": ordinal,
                    "start": start,
                    "end": start + len(text),
                    "page": None,
                    "page_breaks": [],
                    "heading": "",
                    "title": "",
                    "text": text,
                    "source": document.doc_id,
                    "metadata": document.metadata,
                    "lexical_text": text,
                }
            )
            start += len(text)
    return pa.Table.from_pylist(rows, schema=group_schema(schema))


def record_of(rows: int) -> ShardRecord:
    """A shard of so many rows, of which there are no files."""
    return ShardRecord(id="s", files={}, rows=rows, documents=rows)


def build_index(
    storage: Storage,
    folder: Path,
    documents: Sequence[SmallDocument],
    shards: int,
    factory: str = "Flat",
    name: str = "small",
    number: int = 1,
    nprobe: int | None = None,
) -> Manifest:
    """Publish nothing: write the objects of a snapshot and return its manifest."""
    dimension = len(documents[0].chunks[0][1])
    schema = md.infer([document.metadata for document in documents])
    vectors = np.array([vector for document in documents for _, vector in document.chunks], np.float16)
    chosen = choose(factory, Wanted(len(vectors), dimension)) if factory != "Flat" else IndexType("Flat", "given")
    folder.mkdir(parents=True, exist_ok=True)
    template = folder / f"template-{name}-{number}.faiss"
    sample = vectors[: training_size(chosen, len(vectors))].astype(np.float32)
    trained_on = train(chosen, sample, dimension, template)
    digest, size = sha256_of(template), template.stat().st_size
    key = layout.template(name, digest)
    if not storage.exists(key):
        storage.upload(key, template)
    records, length = [], 0
    for shard in range(shards):
        part = list(documents[len(documents) * shard // shards : len(documents) * (shard + 1) // shards])
        if not part:
            continue
        rows = np.array([vector for document in part for _, vector in document.chunks], np.float16)
        built = write_shard(
            folder / f"{name}-{number}-{shard}",
            [(rows_table(part, schema), rows)],
            storage.local(key),
            schema,
            "english",
        )
        records.append(publish_shard(storage, name, f"{number}-{shards}-{shard}", built))
        length += built.total_length
    chunks = sum(record.rows for record in records)
    return Manifest(
        index=name,
        number=number,
        parent=number - 1 or None,
        embedder=identity(dimension),
        template=TemplateRecord(
            factory=chosen.factory,
            file=FileRecord(key=key, size=size, sha256=digest),
            metric="inner_product",
            nprobe=nprobe or default_nprobe(chosen),
            trained_on=trained_on,
        ),
        shards=tuple(records),
        metadata=schema,
        chunking={},
        cleaning={},
        lexical=LexicalRecord(language="english", chunks=chunks, total_length=length),
        documents=(),
        ledger=(),
        seen=None,
        dead_letters=(),
        counts=Counts(documents=len(documents), indexed=len(documents), chunks=chunks),
        recall=None,
        made_by=MadeBy(
            job_id="test",
            tandem="0",
            created="2026-01-01T00:00:00+00:00",
            config_hash="",
            seconds=0,
        ),
        config={},
    )
