"""Read files: a registry of readers, one file each, and the way in, `read_part`.

A reader is a function `read(stream, part, limits)` that yields a RawDocument or a Reject for each record. To add a
format: one module here, one line in READERS, one line for its suffix in FORMATS.

Guaranteed: whatever a file holds, reading it ends in Documents and Rejects, never in an exception; what was read before
the damage is kept; a compressed file is not unpacked beyond its limit. Not guaranteed: a bound on the time and memory
that a parser spends on a hostile file; `apart.py` has one.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import BinaryIO, cast

import pyarrow as pa

from ray_jobs.corpus.document import Document, RawDocument, Reject, make_document
from ray_jobs.corpus.formats import BEGINNING_BYTES, FORMATS, STREAMED, disguised
from ray_jobs.corpus.limits import Limits
from ray_jobs.corpus.metadata import MisfitError
from ray_jobs.corpus.opening import ExpandsError, open_file
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

_ALL_TEXT = frozenset({"txt", "md"})
_Read = Callable[[BinaryIO, SourcePart, Limits], Iterator[RawDocument | Reject]]


def reader_of(format: str) -> _Read:
    """The reader of a format, its parser imported."""
    return cast("_Read", import_module(READERS[format]).read)


def read_part(part: SourcePart, limits: Limits) -> Iterator[Document | Reject]:
    """Read the documents of a part, each named and normalised; raises nothing but what stops the process."""
    refused = _refused(part.file, limits)
    if refused is not None:
        yield refused
        return
    read = reader_of(part.file.format)
    try:
        with open_file(part.file, limits.unpacked(part.file.size)) as stream:
            other = disguised(_beginning(stream, part), part.file.format)
            if not other:
                for found in read(stream, part, limits):
                    yield found if isinstance(found, Reject) else _document(found, part.file, limits)
            elif part.start == 0:
                yield Reject("file", "wrong-format", f"the file begins like {other}: check its suffix")
        return
    except Exception as error:  # A parser may raise anything; it costs only its file.
        stopped = _stopped(error)
    # Not inside: what the parser holds would be held as long as the error is.
    yield stopped


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
    except (OSError, pa.ArrowException, MemoryError):
        return split(file, max_bytes)


def _refused(file: SourceFile, limits: Limits) -> Reject | None:
    """Why a file is not opened; None where it is."""
    if file.format not in READERS:
        known = ", ".join(sorted(FORMATS))
        return Reject("file", "unknown-format", f"no reader knows this kind of file; expected one of {known}")
    if file.format in STREAMED or file.format == "parquet":
        return None
    bound = min(limits.file_bytes, limits.text_bytes) if file.format in _ALL_TEXT else limits.file_bytes
    if file.size > bound:
        return Reject("file", "too-large", f"the file has {file.size} bytes; at most {bound} are read whole")
    return None


def _beginning(stream: io.BufferedReader, part: SourcePart) -> bytes:
    """The first bytes of the file, whichever part is read; of Parquet none: its reader knows its own."""
    if part.file.format == "parquet":
        return b""
    if part.start == 0:
        return stream.peek(BEGINNING_BYTES)[:BEGINNING_BYTES]
    with open_file(part.file, buffer_bytes=BEGINNING_BYTES) as start:
        return start.read(BEGINNING_BYTES)


def _stopped(error: Exception) -> Reject:
    """The Reject of a file that cannot be read, or not to its end."""
    match error:
        case FileNotFoundError():
            return Reject("file", "vanished", "the file was there when it was listed, and is not any more")
        case ExpandsError():
            return Reject("file", "expands", str(error))
        case RecursionError():
            return Reject("file", "too-deep", "the content is nested deeper than its parser goes")
        case MemoryError():
            return Reject("file", "out-of-memory", "its parser asked for more memory than it may have")
        case _:
            return Reject("file", "unreadable", f"reading stopped here: {_line(error)}")


def _document(raw: RawDocument, file: SourceFile, limits: Limits) -> Document | Reject:
    doc_id = raw.id or file.doc_id
    small = 4 * len(raw.text) <= limits.text_bytes
    size = len(raw.text) if small else len(raw.text.encode("utf-8", "surrogatepass"))
    if size > limits.text_bytes:
        return Reject(raw.id or "file", "too-large", f"the text has {size} bytes; at most {limits.text_bytes} are read")
    try:
        return make_document(raw, doc_id, source=file.doc_id, format=file.format)
    except MisfitError as error:
        return Reject(doc_id, "bad-metadata", str(error))


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


__all__ = ["READERS", "open_file", "parts_of", "read_part", "reader_of"]
