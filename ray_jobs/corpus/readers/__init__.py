"""Read files: a registry of readers, one file each, and the one way in, `read_part`.

A reader is a function `read(stream, part)` that yields a RawDocument or a Reject for each record. To add a format:
one module here, one line in READERS, one line for its suffix in FORMATS.

Guaranteed: whatever a file holds, reading it ends in Documents and Rejects, never in an exception; what was read before
the damage is kept. Not guaranteed: a bound on the time that a parser spends on a hostile file.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import BinaryIO, cast

from ray_jobs.corpus.document import Document, RawDocument, Reject, make_document
from ray_jobs.corpus.formats import FORMATS, STREAMED, compression_of
from ray_jobs.corpus.listing import is_uri
from ray_jobs.corpus.metadata import MisfitError
from ray_jobs.corpus.planning import SourcePart, split
from ray_jobs.corpus.sources import SourceFile

READERS: dict[str, str] = {
    "txt": "ray_jobs.corpus.readers.txt",
    "md": "ray_jobs.corpus.readers.md",
    "html": "ray_jobs.corpus.readers.html",
    "pdf": "ray_jobs.corpus.readers.pdf",
    "docx": "ray_jobs.corpus.readers.docx",
    "csv": "ray_jobs.corpus.readers.csv",
    "jsonl": "ray_jobs.corpus.readers.jsonl",
    "parquet": "ray_jobs.corpus.readers.parquet",
    "pydoc": "ray_jobs.corpus.readers.pydoc",
}
"""Format to module; a module is imported when its format is first met."""

MAX_WHOLE_BYTES = 256 * 1024 * 1024
"""Formats that are read whole reject a larger file."""

BUFFER_BYTES = 1024 * 1024

_Read = Callable[[BinaryIO, SourcePart], Iterator[RawDocument | Reject]]


def read_part(part: SourcePart) -> Iterator[Document | Reject]:
    """Read the documents of a part, each named and normalised; raises nothing but what stops the process."""
    file = part.file
    if file.format not in READERS:
        known = ", ".join(sorted(FORMATS))
        yield Reject("file", "unknown-format", f"no reader knows this kind of file; expected one of {known}")
        return
    if file.format not in STREAMED and file.format != "parquet" and file.size > MAX_WHOLE_BYTES:
        yield Reject("file", "too-large", f"the file has {file.size} bytes; at most {MAX_WHOLE_BYTES} are read whole")
        return
    read = cast("_Read", import_module(READERS[file.format]).read)
    try:
        with open_file(file) as stream:
            for found in read(stream, part):
                yield found if isinstance(found, Reject) else _document(found, file)
    except FileNotFoundError:
        yield Reject("file", "vanished", "the file was there when it was listed, and is not any more")
    except Exception as error:  # A parser may raise anything; it costs only its file.
        yield Reject("file", "unreadable", f"reading stopped here: {_line(error)}")


def parts_of(file: SourceFile, max_bytes: int) -> list[SourcePart]:
    """Cut a file into parts of at most `max_bytes`, opening it only if it is Parquet and larger: for its footer.

    A Parquet file whose footer cannot be read stays whole, so that reading it tells why. Raises UsageError for a bound
    that is not positive.
    """
    if file.format != "parquet" or file.size <= max_bytes:
        return split(file, max_bytes)
    from ray_jobs.corpus.readers.parquet import row_group_bytes

    try:
        with open_file(file) as stream:
            return split(file, max_bytes, row_group_bytes(stream))
    except OSError:
        return split(file, max_bytes)


def open_file(file: SourceFile) -> BinaryIO:
    """Open a file for reading, through pyarrow's filesystems and decompressed. Raises OSError."""
    from pyarrow import fs

    filesystem, path = fs.FileSystem.from_uri(file.uri) if is_uri(file.uri) else (fs.LocalFileSystem(), file.uri)
    compression = compression_of(file.uri)
    if compression is not None:
        return _buffered(filesystem.open_input_stream(path, compression=compression))
    return _buffered(filesystem.open_input_file(path))


def _buffered(stream: object) -> BinaryIO:
    # pyarrow's own readline reads to the end of the stream.
    return io.BufferedReader(cast("io.RawIOBase", stream), BUFFER_BYTES)


def _document(raw: RawDocument, file: SourceFile) -> Document | Reject:
    # File names differ in normalisation from one operating system to the next; ids must not.
    doc_id = raw.id or unicodedata.normalize("NFC", file.doc_id)
    try:
        return make_document(raw, doc_id, source=unicodedata.normalize("NFC", file.doc_id), format=file.format)
    except MisfitError as error:
        return Reject(doc_id, "bad-metadata", str(error))


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


__all__ = ["MAX_WHOLE_BYTES", "READERS", "open_file", "parts_of", "read_part"]
