"""Messages of several lines on one, for JSON."""

from __future__ import annotations

import unicodedata


def on_one_line(message: str) -> str:
    """`message` without line breaks; a caret that stands below its place is put before it instead.

    A filter's error shows the expression on its second line and a caret below the place on its third.
    """
    first, *rest = message.split("\n")
    if len(rest) == 2 and rest[1].strip() == "^":
        shown, caret = rest
        place = _at_column(shown, len(caret) - 1)
        return f"{first}, at the ^ in: {shown[:place].lstrip()}^{shown[place:].rstrip()}"
    return " ".join(part.strip() for part in (first, *rest))


def _at_column(text: str, column: int) -> int:
    """The index of the character that stands in `column` of a terminal, where some are two columns wide."""
    reached = 0
    for index, character in enumerate(text):
        if reached >= column:
            return index
        reached += 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return len(text)
