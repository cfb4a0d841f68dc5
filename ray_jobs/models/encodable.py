"""Text as tokenisers take it.

Guaranteed: as many code points as before, so that spans stay right.
"""

from __future__ import annotations


def encodable(text: str) -> str:
    """The text with question marks for halves of surrogate pairs, on which tokenisers fail."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text
