"""Embed: chunks and vectors of one group of staged documents.

Guaranteed: a document is indexed whole or not at all; one whose metadata does not fit the columns, or whose id another
document has, becomes a dead letter or a counted duplicate. While the engine embeds one group, the next is read and
chunked in a thread. Memory: two groups of text, one of vectors.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ray_jobs.corpus import metadata
from ray_jobs.corpus.chunking import Chunker, ChunkingConfig
from ray_jobs.corpus.document import HEADING_SEPARATOR, Chunk, Document
from ray_jobs.corpus.metadata import Schema
from ray_jobs.corpus.tokens import Tokenizer
from ray_jobs.index.rows import ROW_FIELDS
from ray_jobs.ingest.dead_letters import write_dead_letters
from ray_jobs.ingest.ledger import EMPTY, IDS_SCHEMA, INDEXED, LEDGER_SCHEMA, write_partitioned
from ray_jobs.ingest.receipts import EmbeddedGroup, StagedGroup
from ray_jobs.ingest.sort import Sorted, sorted_group
from ray_jobs.storage import Storage, new_id


class DocumentEmbedder(Protocol):
    """What this stage needs of an embedder."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Spans of the model's own tokens."""
        ...

    @property
    def max_tokens(self) -> int:
        """Longest text the model sees, special tokens included."""
        ...

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Vectors of texts, (n, d) float32."""
        ...


@dataclass(frozen=True)
class _Prepared:
    """A group with its chunks, ready for the engine."""

    staged: StagedGroup
    sorted: Sorted
    kept: list[tuple[Document, list[Chunk]]]  # those of `sorted`, chunked
    ledger: pa.Table
    seconds: float


def group_schema(schema: Schema) -> pa.Schema:
    """Rows of a group: those of a shard without the document's number, and the text that lexical search sees."""
    fields = [item for item in ROW_FIELDS if item.name != "document"]
    return pa.schema(
        [*fields, pa.field("metadata", metadata.arrow_schema(schema)), pa.field("lexical_text", pa.string())]
    )


class GroupEmbedder:
    """Embeds one group after another."""

    def __init__(
        self,
        storage: Storage,
        index: str,
        folder: str,
        partitions: int,
        embedder: DocumentEmbedder,
        chunking: ChunkingConfig,
        schema: Schema,
    ) -> None:
        self.storage = storage
        self.index = index
        self.folder = folder
        self.partitions = partitions
        self.embedder = embedder
        self.schema = schema
        self.chunker = Chunker(chunking, embedder.tokenizer, embedder.max_tokens)

    def embed_all(self, groups: Iterable[tuple[StagedGroup, pa.Table]]) -> Iterator[EmbeddedGroup]:
        """Embed groups in order, preparing each while the one before is in the engine.

        Beside each group stand its documents that are not embedded, DROPPED_SCHEMA.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="prepare") as ahead:
            pending = None
            for staged, dropped in groups:
                following = ahead.submit(self._prepare, staged, dropped)
                if pending is not None:
                    yield self._embed(pending.result())
                pending = following
            if pending is not None:
                yield self._embed(pending.result())

    def _prepare(self, staged: StagedGroup, dropped: pa.Table) -> _Prepared:
        started = time.monotonic()
        ids, found = sorted_group(self.storage, staged, dropped, self.schema)
        chunked = list(self.chunker.chunk_all([document for _, document, _ in found.kept]))
        return _Prepared(
            staged=staged,
            sorted=found,
            kept=[(document, chunks) for (_, document, _), chunks in zip(found.kept, chunked, strict=True)],
            ledger=_ledger(ids, found, [len(chunks) for chunks in chunked], staged.documents.key),
            seconds=time.monotonic() - started,
        )

    def _embed(self, prepared: _Prepared) -> EmbeddedGroup:
        started = time.monotonic()
        texts = [chunk.embedded_text for _, chunks in prepared.kept for chunk in chunks]
        vectors = self.embedder.encode_documents(texts).astype(np.float16)
        forward = time.monotonic() - started
        object_id = new_id()
        keys = {name: f"{self.folder}/groups/{object_id}{name}" for name in (".arrow", ".f16", ".ledger.parquet")}
        with self.storage.scratch() as folder:
            rows = self._write_rows(folder / "rows.arrow", prepared)
            (folder / "vectors.f16").write_bytes(vectors.tobytes())
            write_partitioned(folder / "ledger.parquet", prepared.ledger, self.partitions)
            size = sum((folder / name).stat().st_size for name in ("rows.arrow", "vectors.f16"))
            letters = write_dead_letters(self.storage, self.index, prepared.sorted.letters, folder)
            for name, file in zip(keys, ("rows.arrow", "vectors.f16", "ledger.parquet"), strict=True):
                self.storage.upload(keys[name], folder / file)
        empty = sum(not chunks for _, chunks in prepared.kept)
        return EmbeddedGroup(
            group=prepared.staged.group,
            rows_key=keys[".arrow"],
            vectors_key=keys[".f16"],
            ledger_key=keys[".ledger.parquet"],
            documents=prepared.staged.documents,
            dead_letters=letters,
            rows=rows,
            bytes=size,
            indexed=len(prepared.kept) - empty,
            empty=empty,
            filtered=dict(prepared.sorted.filtered),
            duplicates=prepared.sorted.duplicates,
            examples=tuple(prepared.sorted.examples),
            misfits=prepared.sorted.misfits,
            reasons=dict(Counter(letter.reason for letter in prepared.sorted.letters)),
            forward_seconds=forward,
            seconds=prepared.seconds + time.monotonic() - started,
        )

    def _write_rows(self, path: Path, prepared: _Prepared) -> int:
        schema = group_schema(self.schema)
        records = [
            {
                "doc_id": document.doc_id,
                "version": document.version,
                "ordinal": chunk.ordinal,
                "start": chunk.start,
                "end": chunk.end,
                "page": chunk.page,
                "page_breaks": [start for start in document.pages if chunk.start < start < chunk.end],
                "heading": HEADING_SEPARATOR.join(chunk.heading),
                "title": document.title,
                "text": chunk.text,
                "source": document.source,
                "metadata": fitted,
                "lexical_text": chunk.embedded_text,
            }
            for (document, chunks), (_, _, fitted) in zip(prepared.kept, prepared.sorted.kept, strict=True)
            for chunk in chunks
        ]
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            writer.write_table(pa.Table.from_pylist(records, schema=schema))
        return len(records)


def _ledger(ids: pa.Table, found: Sorted, chunks: Sequence[int], documents_key: str) -> pa.Table:
    """Entries of the documents that are embedded or set aside, in the order of their rows."""
    kept = {row: count for (row, _, _), count in zip(found.kept, chunks, strict=True)}
    starts = dict(zip(kept, accumulate(chunks, initial=0), strict=False))
    entries = [
        {
            **{name: entry[name] for name in IDS_SCHEMA.names},
            "documents_key": documents_key,
            "chunks": kept.get(row, 0),
            "status": INDEXED if kept.get(row) else EMPTY,
            "first_row": starts.get(row, 0),
            **found.aside.get(row, {}),
        }
        for entry in ids.to_pylist()
        if (row := entry["row"]) in kept or row in found.aside
    ]
    return pa.Table.from_pylist(entries, schema=LEDGER_SCHEMA)
