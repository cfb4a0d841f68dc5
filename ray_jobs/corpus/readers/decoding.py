"""Turn bytes into text when the file does not say its encoding.

Guaranteed: a byte order mark is always believed, and so is valid UTF-8 unless one byte in a hundred is a control
character; a text that is UTF-8 but for a few broken bytes stays UTF-8, with U+FFFD in their place. Not guaranteed:
anything else is a guess by statistics, and short texts in one-byte encodings are guessed wrongly at times.
"""

from __future__ import annotations

import codecs
import re

from ray_jobs.corpus.reasons import Reason

SAMPLE_BYTES = 64 * 1024

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Bytes that no text has: control characters other than tab, line feed, form feed, carriage return, escape.
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")


class UndecodableError(Exception):
    """Bytes that are no text: "binary" or "bad-encoding"."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def decode(data: bytes) -> str:
    """Return the text of a whole file. Raises UndecodableError."""
    try:
        return data.decode("utf-8-sig") if not _CONTROL.search(data, 0, SAMPLE_BYTES) else _decode_guessed(data)
    except UnicodeDecodeError:
        return _decode_guessed(data)


def encoding_of(sample: bytes, complete: bool) -> str:
    """Return the codec that reads a file starting with `sample`; `complete` if there is nothing after it.

    Raises UndecodableError if the bytes are no text in any encoding.
    """
    for mark, codec in _MARKS:
        if sample.startswith(mark):
            return codec
    if b"\x00" in sample:
        return _utf16_of(sample)
    controls = len(_CONTROL.findall(sample))
    if controls > len(sample) // 100:
        raise UndecodableError("binary", f"{controls} control characters in {len(sample)} bytes: this is not text")
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    broken = decoder.decode(sample, final=complete).count("\ufffd")
    if broken == 0 or len(_MULTIBYTE.findall(sample)) > 3 * broken:
        return "utf-8"
    return _guess(sample)


def _decode_guessed(data: bytes) -> str:
    codec = encoding_of(data[:SAMPLE_BYTES], len(data) <= SAMPLE_BYTES)
    if not codec.startswith("utf"):
        try:
            return data.decode(codec)
        except UnicodeDecodeError as error:
            # The sample misled: what stands there tells more.
            there = data[max(0, error.start - SAMPLE_BYTES) : error.start + SAMPLE_BYTES]
            codec = encoding_of(there, False)
    return data.decode(codec, "replace")


def _utf16_of(sample: bytes) -> str:
    """Recognise UTF-16 without a mark: in text, the NULs stand on one side only."""
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    half = len(sample) // 2
    if max(even, odd) > half // 4 and min(even, odd) <= half // 100:
        return "utf-16-le" if odd > even else "utf-16-be"
    raise UndecodableError("binary", f"{even + odd} NUL bytes in {len(sample)}: this is not text")


def _guess(sample: bytes) -> str:
    from charset_normalizer import from_bytes

    matches = from_bytes(sample)
    best = matches.best()
    if best is None:
        raise UndecodableError("bad-encoding", "no known encoding reads these bytes as text: save the file as UTF-8")
    for match in matches:
        # Western and Central European code pages share most letters; where they score alike, Western is likelier.
        alike = match.chaos <= best.chaos and match.coherence >= best.coherence - 0.1
        if match.encoding == "cp1252" and alike and best.encoding in ("cp1250", "cp1257"):
            return "cp1252"
    return best.encoding
