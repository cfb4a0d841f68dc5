"""What a document and a chunk are.

Guaranteed: a Document's text is NFC-normalised, its lines end in line feeds, and it has no NUL, no byte order mark and
no lone surrogate; all offsets (pages, chunk spans) count Unicode code points in that text. Two documents with the same
title, text, pages and metadata have the same version on every machine. Not guaranteed: that doc_id is unique; the
corpus says so, and ingest checks it.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import accumulate, pairwise

import pyarrow as pa

from ray_jobs.corpus import metadata as md
from ray_jobs.corpus.metadata import Value, clean_text
from ray_jobs.corpus.reasons import Reason

VERSION_BYTES = 16

DOCUMENT_SCHEMA = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("version", pa.binary(VERSION_BYTES), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("format", pa.string(), nullable=False),
        pa.field("pages", pa.list_(pa.int32()), nullable=False),
        pa.field("metadata", pa.string(), nullable=False),
    ]
)

CHUNK_SCHEMA = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("version", pa.binary(VERSION_BYTES), nullable=False),
        pa.field("ordinal", pa.int32(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),
        pa.field("end", pa.int32(), nullable=False),
        pa.field("page", pa.int32()),
        pa.field("heading", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("metadata", pa.string(), nullable=False),
    ]
)

HEADING_SEPARATOR = " > "


@dataclass(frozen=True, slots=True)
class RawDocument:
    """What a reader found, before it is normalised.

    `id` is None where the file gives none. `pages` holds the offset in `text` at which each page starts, in code
    points and ascending, the first at 0; it is empty where the format has no pages.
    """

    text: str
    id: str | None = None
    title: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict)
    pages: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that could not be read, and why.

    `locator` says where in its file ("byte 17", "row 3", "file"); `reason` is one of REASONS;
    `message` is a sentence for people.
    """

    locator: str
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Document:
    """One document of the corpus, normalised. `source` is the identity of the file that holds it."""

    doc_id: str
    version: bytes
    title: str
    text: str
    source: str
    format: str
    pages: tuple[int, ...]
    metadata: dict[str, Value]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage of a document: `text == document.text[start:end]`.

    `heading` is the path of headings above the passage, outermost first; `page` counts from 1 and is None without
    pages; `embedded_text` is what the embedder sees: title and headings, then the text.
    """

    ordinal: int
    start: int
    end: int
    text: str
    heading: tuple[str, ...]
    page: int | None
    embedded_text: str


def make_document(raw: RawDocument, doc_id: str, source: str, format: str) -> Document:
    """Normalise what a reader found and stamp it with its version.

    Raises MisfitError for metadata that has no column type.
    """
    text, pages = _normalise_pages(raw.text, raw.pages)
    title = " ".join(_normalise(raw.title).split())
    plain = md.plain(raw.metadata)
    return Document(
        doc_id=clean_text(doc_id),
        version=version_of(title, text, pages, plain),
        title=title,
        text=text,
        source=clean_text(source),
        format=format,
        pages=pages,
        metadata=plain,
    )


def version_of(title: str, text: str, pages: Sequence[int], metadata: Mapping[str, Value]) -> bytes:
    """Return the BLAKE2b-128 digest of the content; each part is preceded by its length, so none runs into the next."""
    digest = blake2b(digest_size=VERSION_BYTES)
    for part in (title, text, json.dumps(list(pages)), md.encode(metadata)):
        data = part.encode("utf-8")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()


def chunk_id(doc_id: str, version: bytes, ordinal: int) -> str:
    """Return the name of a chunk; unique in an index as long as 48 bits tell the versions of one document apart."""
    return f"{doc_id}@{version.hex()[:12]}#{ordinal}"


def documents_to_table(documents: Sequence[Document]) -> pa.Table:
    """Return the documents as rows of DOCUMENT_SCHEMA, in order."""
    columns = {
        "doc_id": [d.doc_id for d in documents],
        "version": [d.version for d in documents],
        "title": [d.title for d in documents],
        "text": [d.text for d in documents],
        "source": [d.source for d in documents],
        "format": [d.format for d in documents],
        "pages": [list(d.pages) for d in documents],
        "metadata": [md.encode(d.metadata) for d in documents],
    }
    return pa.Table.from_pydict(columns, schema=DOCUMENT_SCHEMA)


def table_to_documents(table: pa.Table) -> list[Document]:
    """Return the documents that `documents_to_table` wrote."""
    return [
        Document(**{**row, "pages": tuple(row["pages"]), "metadata": md.decode(row["metadata"])})
        for row in table.select(DOCUMENT_SCHEMA.names).to_pylist()
    ]


def chunks_to_table(chunked: Sequence[tuple[Document, Sequence[Chunk]]]) -> pa.Table:
    """Return the chunks of documents as rows of CHUNK_SCHEMA, in order; the embedded text is not kept."""
    pairs = [(document, chunk) for document, chunks in chunked for chunk in chunks]
    encoded = {id(document): md.encode(document.metadata) for document, _ in chunked}
    columns = {
        "doc_id": [d.doc_id for d, _ in pairs],
        "version": [d.version for d, _ in pairs],
        "ordinal": [c.ordinal for _, c in pairs],
        "start": [c.start for _, c in pairs],
        "end": [c.end for _, c in pairs],
        "page": [c.page for _, c in pairs],
        "heading": [HEADING_SEPARATOR.join(c.heading) for _, c in pairs],
        "title": [d.title for d, _ in pairs],
        "text": [c.text for _, c in pairs],
        "source": [d.source for d, _ in pairs],
        "metadata": [encoded[id(d)] for d, _ in pairs],
    }
    return pa.Table.from_pydict(columns, schema=CHUNK_SCHEMA)


def _normalise(text: str) -> str:
    text = clean_text(text).removeprefix("\ufeff")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", text)


def _normalise_pages(text: str, pages: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Normalise page by page, so that the page offsets move along."""
    if not pages:
        return _normalise(text), ()
    parts = [_normalise(text[a:b]) for a, b in pairwise((*pages, len(text)))]
    if not unicodedata.is_normalized("NFC", "".join(parts)):
        # A page starts with a mark that would compose with the page before; nothing composes with a line end.
        parts = [part + "\n" for part in parts]
    return "".join(parts), tuple(accumulate((len(part) for part in parts[:-1]), initial=0))
