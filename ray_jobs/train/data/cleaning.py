"""Clean a text: what two files may write differently and no reader can see.

Guaranteed: the result is NFC, its lines end in line feeds, it has no NUL, no lone surrogate, no byte order mark and no
control character but tab and line feed; no-break and typographic spaces are plain ones; cleaning twice changes nothing
more. Not guaranteed: that white space at the ends goes; the first space of a completion may be meant.
"""

from __future__ import annotations

import unicodedata

from ray_jobs.corpus.metadata import clean_text

_SPACES = (0xA0, *range(0x2000, 0x200B), 0x202F, 0x205F)
_LINE_ENDS = (0x0B, 0x0C, 0x85)
_CONTROLS = (*(code for code in range(0x20) if code not in (0x09, 0x0A, 0x0B, 0x0C)), *range(0x7F, 0xA0), 0xFEFF)
_TABLE = {**dict.fromkeys(_CONTROLS), **dict.fromkeys(_SPACES, " "), **dict.fromkeys(_LINE_ENDS, "\n")}


def clean(text: str) -> str:
    """The text as it is kept."""
    if text.isascii() and text.isprintable():
        return text
    text = clean_text(text)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", text.translate(_TABLE))


def cleaned_start(text: str, start: int, cleaned: str, part: str) -> int | None:
    """Where `part`, which is `clean` of what lies at `start` of `text`, lies in `cleaned`; None if it is not there.

    All offsets are in code points.
    """
    if text == cleaned:
        return start
    guess = len(clean(text[:start]))
    # A mark at the seam may compose with the letter before it, which moves what follows by one.
    return next((at for at in (guess, guess - 1, guess + 1) if at >= 0 and cleaned.startswith(part, at)), None)
