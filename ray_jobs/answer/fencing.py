"""Text of documents and users as mere text inside a prompt.

Guaranteed of `neutralise`: no control character but tab and line feed, no character that reorders or hides text, none
of the reserved strings (a model's special tokens) whatever their case, and no "[n]" that could be taken for a citation.
Guaranteed of `fence_for`: a word that stands in none of the texts, so that none can close a fence made of it; the same
texts give the same word. Not guaranteed: that a model heeds a fence.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache

_BRACKETED = re.compile(r"\[(\d{1,4})\]")
_LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Controls; marks of direction; tags, which nobody sees and a model reads; halves of surrogate pairs.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_WORD_LENGTH = 8


def neutralise(text: str, reserved: tuple[str, ...] = ()) -> str:
    """``text`` without what a model or this program could take for more than text.

    A reserved string gets a space behind its first character; "[7]" becomes "[ 7 ]", which no answer's marker looks
    like and which still is the same code.
    """
    plain = _FORBIDDEN.sub("", _LINE_ENDS.sub("\n", text))
    if pattern := _any_of(reserved):
        while pattern.search(plain):
            plain = pattern.sub(_broken, plain)
    return _BRACKETED.sub(r"[ \1 ]", plain)


def fence_for(texts: Iterable[str]) -> str:
    """A word of hexadecimal digits that stands in none of ``texts``."""
    joined = "\0".join(texts)
    digest = hashlib.blake2b(joined.encode(errors="replace"), digest_size=32).hexdigest()
    lowered = joined.lower()
    while (word := digest[:_WORD_LENGTH]) in lowered:
        digest = hashlib.blake2b(digest.encode(), digest_size=32).hexdigest()
    return word


def one_line(text: str) -> str:
    """``text`` with every run of white space as one space."""
    return " ".join(text.split())


@lru_cache(maxsize=8)
def _any_of(reserved: tuple[str, ...]) -> re.Pattern[str] | None:
    longest_first = sorted({string for string in reserved if string.strip()}, key=len, reverse=True)
    if not longest_first:
        return None
    # Some models reserve a thousand strings: looking at the first character alone keeps long texts cheap.
    firsts = "".join(sorted({re.escape(string[0]) for string in longest_first}))
    return re.compile(f"(?=[{firsts}])(?:{'|'.join(map(re.escape, longest_first))})", re.IGNORECASE)


def _broken(match: re.Match[str]) -> str:
    found = match[0]
    return f"{found[0]} {found[1:]}" if len(found) > 1 else " "
