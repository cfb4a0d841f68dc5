"""Where a span of a text may begin and end: around the words that a token covers, never inside a character.

What a reader of text takes for one character may be several code points: a letter with combining marks, an emoji with
a variation selector, a skin colour or another emoji joined to it. Tokenisers drop or split some of them.

Guaranteed: the new span holds every character of the old one that is no white space, and begins and ends with none;
it neither begins with a mark that belongs to what is before it nor ends before one that belongs to what is in it.
Not covered: flags, whose two letters are found only by counting from the start, and the jamo of Hangul.
"""

from __future__ import annotations

import unicodedata

_JOINER = "\u200d"
_SKIN_COLOURS = range(0x1F3FB, 0x1F400)


def whole_characters(text: str, start: int, end: int) -> tuple[int, int]:
    """The span of `text[start:end]` without white space around it and with whole characters at both ends."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    if start == end:
        return start, end
    while start > 0 and _continues(text, start):
        start -= 1
    while end < len(text) and _continues(text, end):
        end += 1
    return start, end


def _continues(text: str, place: int) -> bool:
    """Whether `text[place]` belongs to the same character as what is before it."""
    before, here = text[place - 1], text[place]
    if before.isspace():
        return False
    if here == _JOINER or before == _JOINER:
        return not here.isspace()
    return unicodedata.category(here) in ("Mn", "Me", "Mc") or ord(here) in _SKIN_COLOURS
