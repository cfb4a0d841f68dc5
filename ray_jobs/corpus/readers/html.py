"""Read a web page: its main content as Markdown, its title.

Guaranteed: scripts, styles, navigation and footers are left out; headings, lists, tables and code keep their form; a
page that is nested too deeply for its parser is rejected, not read in part. Not guaranteed: where the main content of a
page starts and ends; that is trafilatura's judgement.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from trafilatura import extract, html2txt, load_html
from trafilatura.metadata import extract_metadata
from trafilatura.utils import HTML_PARSER

from ray_jobs.corpus.document import RawDocument, Reject
from ray_jobs.corpus.limits import Limits
from ray_jobs.corpus.planning import SourcePart
from ray_jobs.corpus.readers.decoding import UndecodableError, decode

_DECLARED = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w-]+)", re.IGNORECASE)
_CODE = re.compile(r"(```.*?```|`[^`\n]+`)", re.DOTALL)
_ESCAPED = re.compile(r"\\([_*`\[\]<>|~])")
_LIMIT = "ERR_RESOURCE_LIMIT"
_NOT_CONTENT = ["//nav", "//footer", "//aside", "//*[@role='navigation']", "//script", "//style", "//noscript"]


def read(stream: BinaryIO, part: SourcePart, limits: Limits) -> Iterator[RawDocument | Reject]:
    """Yield the main content of the page, or one Reject if it is no HTML."""
    try:
        html = _decode(stream.read())
    except UndecodableError as error:
        yield Reject("file", error.reason, str(error))
        return
    if not html.strip():
        yield RawDocument(text="")
        return
    tree = load_html(html)
    if tree is None:
        yield Reject("file", "wrong-format", "no HTML element was found: check the suffix")
        return
    deep = next((entry.message for entry in HTML_PARSER.error_log if entry.type_name == _LIMIT), None)
    if deep is not None:
        # What stands deeper is not in the tree, and often nothing is left.
        yield Reject("file", "too-deep", f"the page is nested deeper than its parser goes: {deep}")
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
