"""Where a text may be cut: headings, blocks, sentences. Reads Markdown as found in the wild, and plain text with it.

Headings are ATX (`# x`), setext and reStructuredText underlines (`===`, `---`, `~~~`); code between fences is one
block and holds no heading; other blocks end at a blank line. A sentence ends at Latin or CJK punctuation, and so does
a line that is followed by a list item or a table row; inside code every line is a sentence.

Guaranteed: blocks and sentences are in order, do not overlap, start at a character that is not white space, and
together hold every such character. Not guaranteed: CommonMark to the letter (nested blocks, HTML, indented code), and
abbreviations other than the usual English ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

_ATX = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*")
_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})")
LONGEST_HEADING = 500
"""Characters; a longer line is a paragraph, whatever it starts with."""

_UNDERLINE_LEVELS = {"=": 1, "-": 2, "~": 3}
_NOT_A_TITLE = ("|", ">", "- ", "* ", "+ ")

_ABBREVIATION = re.compile(
    r"mr|mrs|ms|dr|prof|st|jr|sr|vs|etc|al|approx|dept|est|figs?|eqs?|nos?|vols?|pp|eds?|cf|ca|inc|ltd|co|corp"
    r"|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|e\.g|i\.e|u\.s|u\.k|a\.m|p\.m|ph\.d",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(
    r"""
    (?P<latin> (?<![.!?]) [.!?]++ ["'”’)\]]*+ \s++ (?= ["'“‘(\[`*_]* [^\W_a-z] ) )  # not before a small letter
  | (?P<cjk>   (?<![。！？｡]) [。！？｡]++ [」』”’）】\])"']*+ \s*+ )
  | (?P<line>  \n [ \t]* (?= (?: [-*+•|] | \d{1,3}[.)] ) [ \t] | \|) )  # the next list item or table row
  | (?P<gap>   \n [ \t]* \n \s* )
    """,
    re.VERBOSE,
)
_WORD_BEFORE = re.compile(r"[^\s(\[\"'“‘]*$")
_LONGEST_ABBREVIATION = 12


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of text that belongs together: `text[start:end]`, white space at its ends left out.

    `level` and `title` are those of a heading, 0 and "" otherwise.
    """

    kind: Literal["heading", "code", "text"]
    start: int
    end: int
    level: int = 0
    title: str = ""


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading: `level` 1 is the outermost; `start` and `end` delimit its line or lines."""

    level: int
    text: str
    start: int
    end: int


def headings(text: str) -> Iterator[Heading]:
    """Yield the headings of a text, in order."""
    return (Heading(b.level, b.title, b.start, b.end) for b in blocks(text) if b.kind == "heading")


def blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of a text, in order."""
    open_from = -1  # where the running paragraph or code block starts
    closed_at = 0  # where its last line ends
    lines_in, indented = 0, False
    fence = ""
    offset = 0
    for line in text.split("\n"):
        stripped = line.strip()
        start, end = offset, offset + len(line)
        offset = end + 1
        first = stripped[:1]
        if fence:
            closed_at = start + len(line.rstrip()) if stripped else closed_at
            if stripped.startswith(fence) and not stripped.strip(fence[0]):
                yield Block("code", open_from, closed_at)
                fence, open_from = "", -1
            continue
        if not stripped:
            if open_from >= 0:
                yield Block("text", open_from, closed_at)
                open_from = -1
            continue
        heading = _ATX.fullmatch(line) if first == "#" and len(line) <= LONGEST_HEADING else None
        opening = _FENCE.match(line) if first in "`~" else None
        if heading is not None or opening is not None:
            if open_from >= 0:
                yield Block("text", open_from, closed_at)
                open_from = -1
            inner = start + len(line) - len(line.lstrip())
            if heading is not None:
                if heading[2]:
                    yield Block("heading", inner, start + len(line.rstrip()), len(heading[1]), heading[2])
                else:
                    yield Block("text", inner, start + len(line.rstrip()))
            elif opening is not None:
                fence, open_from, closed_at = opening[1], inner, start + len(line.rstrip())
            continue
        if open_from >= 0 and lines_in == 1 and first in _UNDERLINE_LEVELS and _underlines(stripped, first):
            title = text[open_from:closed_at]
            if len(title) <= LONGEST_HEADING and not indented and not title.startswith(_NOT_A_TITLE):
                yield Block("heading", open_from, start + len(line.rstrip()), _UNDERLINE_LEVELS[first], title)
                open_from = -1
                continue
        if open_from < 0:
            open_from, lines_in = start + len(line) - len(line.lstrip()), 0
            indented = line.startswith(("    ", "\t"))
        lines_in += 1
        closed_at = start + len(line.rstrip())
    if open_from >= 0:
        yield Block("code" if fence else "text", open_from, closed_at)


def sentence_starts(text: str, block: Block) -> Iterator[int]:
    """Yield where the sentences of a block start (the first is the block's own start), or the lines of code."""
    yield block.start
    if block.kind == "heading":
        return
    if block.kind == "code":
        position = text.find("\n", block.start, block.end)
        while position >= 0:
            position = _skip_space(text, position, block.end)
            yield position
            position = text.find("\n", position, block.end)
        return
    for match in _SENTENCE_END.finditer(text, block.start, block.end):
        if match.end() < block.end and not (match["latin"] and _abbreviates(text, match.start())):
            yield match.end()


def _underlines(stripped: str, character: str) -> bool:
    return len(stripped) >= 3 and not stripped.strip(character)


def _skip_space(text: str, position: int, end: int) -> int:
    while position < end and text[position].isspace():
        position += 1
    return position


def _abbreviates(text: str, dot: int) -> bool:
    """Say whether the full stop at `dot` ends an abbreviation, an initial or the number of a list item."""
    if text[dot] != ".":
        return False
    match = _WORD_BEFORE.search(text[max(0, dot - _LONGEST_ABBREVIATION) : dot])
    word = match[0] if match else ""
    if word.isdigit():
        return not text[text.rfind("\n", 0, dot) + 1 : dot - len(word)].strip()
    return _ABBREVIATION.fullmatch(word) is not None or (len(word) == 1 and word.isupper() and word != "I")
