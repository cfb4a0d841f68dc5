"""The parts of a passage that can be quoted as an answer: sentences of prose, without markup and code.

Guaranteed: spans are in order, do not overlap, are not empty, and cut the passage's own text; nothing is rewritten.
Headings, fenced code, doctests, tables, directives, link targets and images are left out; markers of lists and quotes
are cut off the front of a span.

Not guaranteed: a perfect reading of Markdown. A passage is a piece of a document and may begin inside a code block,
so lines are also judged by how they look.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from ray_jobs.corpus.structure import Block, sentence_starts

if TYPE_CHECKING:
    from collections.abc import Iterator

MIN_WORDS = 3
"""Shorter sentences answer nothing by themselves: "See below.", "Example:"."""

MAX_LENGTH = 800
"""Longer spans, in code points, are no sentences: lists without stops, minified code, logs."""

_MIN_LETTERS_CJK = 5
_LETTER_SHARE = 0.65
_FENCE = re.compile(r"\s*(?:```+|~~~+)\s*(\S*)")
_ITEM = re.compile(r"\s*(?:(?:[-*+•:]|\d{1,3}[.)]|>+)\s+)+")
_PARAMETER = re.compile(r"\s+\*{0,2}\w+(?:\s*\([^)\n]*\))?:\s+\S")
_UNDERLINE = re.compile(r"\s*([=\-~^\"*+])\1{2,}\s*$")
_LABEL = re.compile(r"\s*[^\W\d_][\w ]{0,30}:\s*$")
_LITERAL = re.compile(
    r"\s*(?:\.\.\s+(?:code|code-block|sourcecode|test\w+|doctest|literalinclude|parsed-literal|math|raw|toctree|\w*-?table)"
    r"::.*|(?!\s*\.\.\s).*::)\s*$"
)
_NOISE = re.compile(
    r"""\s*(?:
        \#{1,6}\s | [=\-~^"*+_]{3,}\s*$ | \|.*\|\s*$ | \+[-=+]+\+ |   # heading, rule, table
        >>>(?:\s|$) | \.\.\.(?:\s|$) | \$\s | %\w |                   # doctest, shell, magic
        \.\.\s | :\w[\w-]*:\s*\S*\s*$ | \[[^\]]+\]:\s |               # directive, option, link target
        !\[ | </?\w[^>]*>\s*$ | <!-- |                                # image, tag, comment
        (?:import\s+[\w.]+|from\s+[\w.]+\s+import\s.*)\s*$ | @[\w.]+(?:\(|\s*$) |
        (?:async\s+)?(?:def|class)\s+\w+.*:\s*$
    )""",
    re.VERBOSE,
)
_CODE = re.compile(r".*[{};\\]\s*$|\s*[)\]}]+[,;:]?\s*$|\s*[\w.\[\]'\"]+\s*[-+*/|&]?=\s*\S|\s*[\w.]+\([^\s]*\)\s*$")
_LINK = re.compile(r"\[[^\]\n]*\]\([^)\s]*\)|:\w+:`[^`<]*<[^`>]*>`")
_WORD = re.compile(r"\S*[^\W\d_]{2,}\S*")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


def quotable_sentences(text: str) -> list[tuple[int, int]]:
    """Spans of the sentences of ``text`` that can be quoted, in code points."""
    return [
        (start, end)
        for first, last in _prose(text)
        for start, end in sentence_spans(text, first, last)
        if _speaks(text[start:end])
    ]


def sentence_around(text: str, start: int, end: int) -> tuple[int, int]:
    """The span of the sentences of prose in which `text[start:end]` stands; elsewhere, of its lines.

    The span itself where that would be longer than MAX_LENGTH, or where neither holds it whole.
    """
    for spans in (quotable_sentences(text), _lines(text)):
        touched = [span for span in spans if span[0] < end and start < span[1]]
        if touched and touched[0][0] <= start and end <= touched[-1][1]:
            first, last = touched[0][0], touched[-1][1]
            return (first, last) if last - first <= MAX_LENGTH else (start, end)
    return start, end


def sentence_spans(text: str, first: int, last: int) -> list[tuple[int, int]]:
    """Spans of the sentences of the paragraph ``text[first:last]``, without the white space between them."""
    starts = [*sentence_starts(text, Block("text", first, last)), last]
    return [
        (start, start + len(text[start:end].rstrip())) for start, end in pairwise(starts) if text[start:end].strip()
    ]


def _lines(text: str) -> list[tuple[int, int]]:
    """Spans of the lines of `text` that are not empty, without the white space around them."""
    found, position = [], 0
    for line in text.splitlines(keepends=True):
        start, position = position, position + len(line)
        if content := line.strip():
            first = start + line.index(content)
            found.append((first, first + len(content)))
    return found


def _prose(text: str) -> Iterator[tuple[int, int]]:
    """Runs of lines that read as one paragraph or list item, without the item's marker."""
    first = last = position = 0
    fenced = _begins_inside_a_fence(text)
    literal_indent: int | None = None
    for line in text.splitlines(keepends=True):
        start, position = position, position + len(line)
        content = line.strip()
        indent = len(line) - len(line.lstrip())
        if literal_indent is not None and content and indent <= literal_indent:
            literal_indent = None
        hidden = fenced or literal_indent is not None
        underlined = bool(_UNDERLINE.match(line)) and first < last and "\n" not in text[first:last]
        if _FENCE.match(line) and not underlined:
            hidden, fenced = True, not fenced
        elif not hidden and _LITERAL.match(line):
            literal_indent = indent
        marker = _ITEM.match(line) or _PARAMETER.match(line)
        separate = hidden or not content or _is_noise(line)
        if (separate or marker) and first < last and not underlined:
            yield first, last
        if separate:
            first = last = position
        else:
            if marker or first == last:
                item = _ITEM.match(line)
                first = start + (item.end() if item else indent)
            last = start + len(line.rstrip())
    if first < last:
        yield first, last


def _is_noise(line: str) -> bool:
    return any(pattern.match(line) for pattern in (_NOISE, _CODE, _LABEL))


def _begins_inside_a_fence(text: str) -> bool:
    """Whether the passage was cut out of a document in the middle of a code block."""
    fences = [(match, line) for line in text.splitlines() if (match := _FENCE.match(line))]
    if len(fences) % 2 == 0 or fences[0][0].group(1):
        return False
    before = text[: text.index(fences[0][1])].splitlines()
    return sum(_is_noise(line) or line.startswith("    ") for line in before) * 2 > len(before)


def _speaks(sentence: str) -> bool:
    # What ends in a colon only announces an answer; the other characters end a line of code.
    if len(sentence) > MAX_LENGTH or sentence.endswith((":", "：", ",", "(", "[", "=")):
        return False
    # A link alone is navigation, and its target is no text.
    spoken = _LINK.sub("", sentence)
    if len(_CJK.findall(spoken)) >= _MIN_LETTERS_CJK:
        return True
    solid = [character for character in spoken if not character.isspace()]
    letters = sum(character.isalpha() for character in solid)
    return len(_WORD.findall(spoken)) >= MIN_WORDS and letters >= _LETTER_SHARE * len(solid)
