"""Read a web page: its main content as Markdown, its title.

Guaranteed: scripts, styles, navigation and footers are left out; headings, lists, tables and code keep their form.
Not guaranteed: where the main content of a page starts and ends; that is trafilatura's judgement.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from ray_jobs.corpus.document import RawDocument, Reject
from ray_jobs.corpus.planning import SourcePart
from ray_jobs.corpus.readers.decoding import UndecodableError, decode

_DECLARED = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w-]+)", re.IGNORECASE)
_CODE = re.compile(r"(```.*?```|`[^`\n]+`)", re.DOTALL)
_ESCAPED = re.compile(r"\\([_*`\[\]<>|~])")
_NOT_CONTENT = ["//nav", "//footer", "//aside", "//*[@role='navigation']", "//script", "//style", "//noscript"]


def read(stream: BinaryIO, part: SourcePart) -> Iterator[RawDocument | Reject]:
    """Yield the main content of the page, or one Reject if it is no HTML."""
    try:
        html = _decode(stream.read())
    except UndecodableError as error:
        yield Reject("file", error.reason, str(error))
        return
    if not html.strip():
        yield RawDocument(text="")
        return
    from trafilatura import extract, html2txt, load_html
    from trafilatura.metadata import extract_metadata

    tree = load_html(html)
    if tree is None:
        yield Reject("file", "not-html", "no HTML element was found: check the suffix")
        return
    title = extract_metadata(tree).title or ""
    text = extract(
        html,
        output_format="markdown",
        include_comments=False,
        include_formatting=True,
        favor_recall=True,
        prune_xpath=_NOT_CONTENT,
    )
    yield RawDocument(text=_unescape(text) if text else html2txt(tree) or "", title=title)


def _unescape(markdown: str) -> str:
    """Undo the escapes outside code: nothing renders this text, and nobody searches for a name with backslashes."""
    pieces = _CODE.split(markdown)
    pieces[::2] = [_ESCAPED.sub(r"\1", piece) for piece in pieces[::2]]
    return "".join(pieces)


def _decode(data: bytes) -> str:
    declared = _DECLARED.search(data, 0, 4096)
    if declared is not None:
        try:
            return data.decode(declared[1].decode("ascii"))
        except (LookupError, UnicodeDecodeError):
            pass  # The page does not keep its word: detect.
    return decode(data)
