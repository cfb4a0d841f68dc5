"""Read CSV and TSV: one document a row, streamed; the first row names the columns.

The delimiter is the one of comma, semicolon, tab and bar that the header has most of; the encoding is detected on the
first bytes. Guaranteed: a row with too many fields or undecodable bytes costs only itself; a cell that looks like a
whole number, a decimal or true/false is one (`007` and `1e3` stay strings), an empty cell is no value. Not guaranteed:
that a quote which is never closed leaves anything of the rows after it.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from typing import BinaryIO

from ray_jobs.corpus.document import RawDocument, Reject
from ray_jobs.corpus.planning import SourcePart
from ray_jobs.corpus.readers.decoding import SAMPLE_BYTES, UndecodableError, encoding_of
from ray_jobs.corpus.readers.rows import missing_text, raw_document

MAX_FIELD_CHARACTERS = 64 * 1024 * 1024

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+")
_UNDECODABLE = re.compile("[\udc80-\udcff]")


def read(stream: BinaryIO, part: SourcePart) -> Iterator[RawDocument | Reject]:
    """Yield the document or the Reject of each row; one Reject if there is no column `text`."""
    sample = stream.read(SAMPLE_BYTES)
    try:
        codec = encoding_of(sample, len(sample) < SAMPLE_BYTES)
    except UndecodableError as error:
        yield Reject("file", error.reason, str(error))
        return
    yield from _rows(_text(sample, stream, codec), part)


def _text(sample: bytes, stream: BinaryIO, codec: str) -> Iterator[str]:
    """Yield the lines of the file, their ends kept; undecodable bytes come as lone surrogates."""
    decoder = codecs.getincrementaldecoder("utf-8-sig" if codec == "utf-8" else codec)("surrogateescape")
    held = ""
    while sample:
        lines = (held + decoder.decode(sample)).split("\n")
        held = lines.pop()
        yield from (line + "\n" for line in lines)
        sample = stream.read(SAMPLE_BYTES)
    held += decoder.decode(b"", final=True)
    if held:
        yield held


def _rows(lines: Iterator[str], part: SourcePart) -> Iterator[RawDocument | Reject]:
    # The limit is the module's own and for the whole process; its default is too low for a document in a cell.
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    header = next(lines, "")
    delimiter = max(",;\t|", key=header.count)
    columns = [name.strip() for name in next(csv.reader(io.StringIO(header), delimiter=delimiter), [])]
    if "text" not in columns:
        if columns:
            yield Reject("file", "no-text", missing_text(columns))
        return
    rows = csv.reader(lines, delimiter=delimiter)
    number = 0
    while True:
        number += 1
        locator = f"row {number}"
        try:
            cells = next(rows, None)
        except csv.Error as error:
            yield Reject(locator, "bad-row", f"the row is not CSV: {error}")
            continue
        if cells is None:
            return
        if cells:
            yield _document(columns, cells, locator, f"{part.file.doc_id}#{number}")


def _document(columns: list[str], cells: list[str], locator: str, made_up: str) -> RawDocument | Reject:
    if len(cells) > len(columns):
        return Reject(locator, "bad-row", f"the row has {len(cells)} fields: expected {len(columns)}, as in the header")
    if any(_UNDECODABLE.search(cell) for cell in cells):
        return Reject(locator, "bad-encoding", "the row has bytes that are not in the encoding of the file")
    row: dict[str, object] = dict(zip(columns, cells, strict=False))
    typed = {key: cell if key in ("id", "text", "title") else _value(str(cell)) for key, cell in row.items() if key}
    found = raw_document(typed, locator)
    if isinstance(found, RawDocument) and found.id is None:
        return RawDocument(found.text, made_up, found.title, found.metadata)
    return found


def _value(cell: str) -> object:
    if not cell:
        return None
    if _INTEGER.fullmatch(cell):
        return int(cell)
    if _DECIMAL.fullmatch(cell):
        return float(cell)
    return cell.lower() == "true" if cell.lower() in ("true", "false") else cell
