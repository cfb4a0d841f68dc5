"""Read PDF: one document a file, its pages kept.

Guaranteed: every page has its start offset, a page without text too. Not guaranteed: reading order in multi-column or
rotated layouts; text of scanned pages (no character recognition: such a document comes out empty).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate
from typing import BinaryIO

import pypdfium2
from pypdfium2.raw import FPDF_ERR_PASSWORD

from ray_jobs.corpus.document import RawDocument, Reject
from ray_jobs.corpus.limits import Limits
from ray_jobs.corpus.planning import SourcePart

_PAGE_BREAK = "\n\n"
# PDFium writes these for a hyphen at the end of a line, which splits a word.
_HYPHEN = re.compile("[\ufffe\u0002](?:\r?\n)?")


def read(stream: BinaryIO, part: SourcePart, limits: Limits) -> Iterator[RawDocument | Reject]:
    """Yield the text of the file, or one Reject if it is encrypted or no PDF."""
    try:
        pdf = pypdfium2.PdfDocument(stream.read())
    except pypdfium2.PdfiumError as error:
        if error.err_code == FPDF_ERR_PASSWORD:
            yield Reject("file", "encrypted", "the PDF asks for a password: save it without one")
        else:
            yield Reject("file", "unreadable", f"this is not a PDF that can be opened: {error}")
        return
    try:
        pages = [_text(pdf, number) + _PAGE_BREAK for number in range(len(pdf))]
        properties = pdf.get_metadata_dict(skip_empty=True)
    finally:
        pdf.close()
    yield RawDocument(
        text="".join(pages),
        title=properties.get("Title", ""),
        metadata={"author": properties.get("Author")},
        pages=tuple(accumulate((len(page) for page in pages[:-1]), initial=0)),
    )


def _text(pdf: pypdfium2.PdfDocument, number: int) -> str:
    page = pdf[number]
    text_page = page.get_textpage()
    text: str = text_page.get_text_bounded()
    text_page.close()
    page.close()
    return _HYPHEN.sub("", text).replace("\r\n", "\n")
