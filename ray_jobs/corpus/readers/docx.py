"""Read Word documents: headings as Markdown, tables as rows, in the order of the page.

Guaranteed: body text and tables are complete. Not guaranteed: headers, footers, footnotes, text boxes and comments,
which are left out.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

import docx
from docx.document import Document as WordDocument
from docx.table import Table
from docx.text.paragraph import Paragraph

from ray_jobs.corpus.document import RawDocument, Reject
from ray_jobs.corpus.limits import Limits
from ray_jobs.corpus.planning import SourcePart

_HEADING = re.compile(r"Heading ([1-6])", re.IGNORECASE)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def read(stream: BinaryIO, part: SourcePart, limits: Limits) -> Iterator[RawDocument | Reject]:
    """Yield the text of the file, or one Reject if it is encrypted, too large or no Word document."""
    data = stream.read()
    if data.startswith(_OLE):
        yield Reject("file", "encrypted", "this is an encrypted or pre-2007 Word file: save it as .docx, unprotected")
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile as error:
        yield Reject("file", "unreadable", f"this is not a Word document: {error}")
        return
    if unpacked > (bound := limits.unpacked(len(data))):
        yield Reject("file", "expands", f"{len(data)} bytes unpack to {unpacked}: at most {bound} are read")
        return
    word = docx.Document(io.BytesIO(data))
    properties = word.core_properties
    yield RawDocument(
        text="\n\n".join(_blocks(word)),
        title=properties.title or _styled_title(word),
        metadata={"author": properties.author or None},
    )


def _styled_title(word: WordDocument) -> str:
    titles = (p.text for p in word.paragraphs if _style(p) in ("Title", "Heading 1"))
    return next(titles, "")


def _blocks(word: WordDocument) -> Iterator[str]:
    for block in word.iter_inner_content():
        text = _rows(block) if isinstance(block, Table) else _paragraph(block)
        if text:
            yield text


def _paragraph(paragraph: Paragraph) -> str:
    text: str = paragraph.text.strip()
    style = _style(paragraph)
    heading = _HEADING.fullmatch(style)
    if not text:
        return ""
    if style == "Title" or heading is not None:
        return "#" * (int(heading[1]) if heading else 1) + " " + " ".join(text.split())
    return f"- {text}" if style.startswith("List") else text


def _rows(table: Table) -> str:
    lines = []
    for row in table.rows:
        cells: list[str] = []
        previous = None
        for cell in row.cells:
            # A merged cell is listed once for each column that it spans.
            if cell._tc is not previous:
                cells.append(" ".join(cell.text.split()))
            previous = cell._tc
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _style(paragraph: Paragraph) -> str:
    return str(paragraph.style.name) if paragraph.style is not None else ""
