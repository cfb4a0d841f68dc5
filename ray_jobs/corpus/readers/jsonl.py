"""Read JSON Lines: one document a line, streamed.

Guaranteed: a line belongs to the part in which its first byte lies, so the parts of a file together yield every line
once, wherever it was cut; a bad or overlong line costs only itself and is never held in memory whole, and no part reads
further than the end of the last line that is its own, or past its own end where that line is too long. A line without
an `id` is named by the offset of its first byte in the (decompressed) file, since its number is not known to a part
that starts in the middle. Not guaranteed: encodings other than UTF-8, which the format prescribes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import BinaryIO

from ray_jobs.corpus.document import RawDocument, Reject
from ray_jobs.corpus.formats import compression_of
from ray_jobs.corpus.limits import Limits
from ray_jobs.corpus.planning import SourcePart
from ray_jobs.corpus.readers.rows import raw_document
from ray_jobs.corpus.reasons import Reason

SKIPPED_BYTES = 1 << 20  # at a time


class LineError(Exception):
    """A line that holds no object."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def read(stream: BinaryIO, part: SourcePart, limits: Limits) -> Iterator[RawDocument | Reject]:
    """Yield the document or the Reject of each line of the part; blank lines are skipped."""
    for offset, line in lines(stream, part, limits.line_bytes):
        locator = f"byte {offset}"
        try:
            row = parse(line, limits.line_bytes)
        except LineError as error:
            expected = " with 'text'" if error.reason == "not-an-object" else ""
            yield Reject(locator, error.reason, f"{error}{expected}")
            continue
        if row is not None:
            found = raw_document(row, locator)
            if isinstance(found, RawDocument) and found.id is None:
                found = RawDocument(found.text, f"{part.file.doc_id}#{offset}", found.title, found.metadata)
            yield found


def lines(stream: BinaryIO, part: SourcePart, bound: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield each line with the offset at which it starts; None instead of a line of more than `bound` bytes."""
    end = part.end if compression_of(part.file.uri) is None else sys.maxsize
    offset = 0
    if part.start > 0:
        # One byte back: if it is a line feed, the line that starts at part.start is ours.
        offset = part.start - 1
        stream.seek(offset)
        offset += _skip_line(stream, end - offset)
    while offset < end:
        line = stream.readline(bound + 1)
        if not line:
            return
        if len(line) > bound and not line.endswith(b"\n"):
            yield offset, None
            offset += len(line)
            offset += _skip_line(stream, end - offset)
        else:
            yield offset, line
            offset += len(line)


def parse(line: bytes | None, bound: int) -> dict[str, object] | None:
    """The object that a line of `lines` holds, None for a blank one. Raises LineError."""
    if line is None:
        raise LineError("too-long", f"the line is longer than {bound} bytes")
    try:
        text = line.decode("utf-8-sig")
        if not text.strip():
            return None
        row = json.loads(text)
    except UnicodeDecodeError as error:
        raise LineError("bad-encoding", f"the line is not UTF-8 (byte {error.start} of it)") from None
    except (ValueError, RecursionError) as error:
        raise LineError("bad-json", f"the line is not JSON: {error}") from None
    if not isinstance(row, dict):
        held = "null" if row is None else f"a {type(row).__name__}"
        raise LineError("not-an-object", f"the line holds {held}: expected an object")
    return row


def _skip_line(stream: BinaryIO, most: int) -> int:
    """Pass over the rest of a line, `most` bytes of it at most; returns how many bytes that were."""
    skipped = 0
    while skipped < most and (piece := stream.readline(min(SKIPPED_BYTES, most - skipped))):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped
