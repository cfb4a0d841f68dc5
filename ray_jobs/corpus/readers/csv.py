"""Read CSV and TSV: one document a row, streamed; the first row names the columns.

The delimiter is the one of comma, semicolon, tab and bar that the header has most of; the encoding is detected on the
first bytes. Guaranteed: a row with too many fields or undecodable bytes costs only itself, and so does one that is too
long, of which no more than the bound is held; a cell that looks like a whole number, a decimal or true/false is one
(`007` and `1e3` stay strings), an empty cell is no value. Not guaranteed: that a quote which is never closed leaves
anything of the rows after it, as far as the bound of one row reaches.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from typing import BinaryIO

from ray_jobs.corpus.document import RawDocument, Reject
from ray_jobs.corpus.limits import Limits
from ray_jobs.corpus.planning import SourcePart
from ray_jobs.corpus.readers.decoding import SAMPLE_BYTES, UndecodableError, encoding_of
from ray_jobs.corpus.readers.rows import missing_text, raw_document

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+")
_UNDECODABLE = re.compile("[\udc80-\udcff]")


class _TooLongError(Exception):
    """The lines of a row are too long together."""


def read(stream: BinaryIO, part: SourcePart, limits: Limits) -> Iterator[RawDocument | Reject]:
    """Yield the document or the Reject of each row; one Reject if there is no column `text`."""
    sample = stream.read(SAMPLE_BYTES)
    try:
        codec = encoding_of(sample, len(sample) < SAMPLE_BYTES)
    except UndecodableError as error:
        yield Reject("file", error.reason, str(error))
        return
    yield from _rows(_Lines(_text(sample, stream, codec, limits.line_bytes), limits.line_bytes), part)


def _text(sample: bytes, stream: BinaryIO, codec: str, bound: int) -> Iterator[str | None]:
    """Yield the lines of the file, their ends kept, None for one that is too long.

    Undecodable bytes come as lone surrogates.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig" if codec == "utf-8" else codec)("surrogateescape")
    held: list[str] = []
    length = 0
    while sample:
        *ended, begun = decoder.decode(sample).split("\n")
        for piece in (*(line + "\n" for line in ended), begun):
            length += len(piece)
            if length <= bound:
                held.append(piece)
            else:
                held.clear()
            if piece.endswith("\n"):
                yield "".join(held) if length <= bound else None
                held, length = [], 0
        sample = stream.read(SAMPLE_BYTES)
    held.append(decoder.decode(b"", final=True))
    if length or held[-1]:
        yield "".join(held) if length <= bound else None


class _Lines:
    """Lines as the csv module takes them; iteration goes on after a row that is too long."""

    def __init__(self, lines: Iterator[str | None], bound: int) -> None:
        self._lines = lines
        self._bound = bound
        self._length = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._length += 0 if line is None else len(line)
        if line is None or self._length > self._bound:
            raise _TooLongError(f"the row is longer than {self._bound} characters")
        return line

    def begin_row(self) -> None:
        """Count anew."""
        self._length = 0


def _rows(lines: _Lines, part: SourcePart) -> Iterator[RawDocument | Reject]:
    try:
        header = next(lines, "")
    except _TooLongError as error:
        yield Reject("file", "too-long", str(error))
        return
    delimiter = max(",;\t|", key=header.count)
    columns = [name.strip() for name in next(csv.reader(io.StringIO(header), delimiter=delimiter), [])]
    if "text" not in columns:
        if columns:
            yield Reject("file", "no-text", missing_text(columns))
        return
    # The limit is the module's own and for the whole process; its default is too low for a document in a cell.
    csv.field_size_limit(1 << 31)
    rows = csv.reader(lines, delimiter=delimiter)
    number = 0
    while True:
        number += 1
        locator = f"row {number}"
        lines.begin_row()
        try:
            cells = next(rows, None)
        except csv.Error as error:
            yield Reject(locator, "bad-row", f"the row is not CSV: {error}")
            continue
        except _TooLongError as error:
            yield Reject(locator, "too-long", str(error))
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
