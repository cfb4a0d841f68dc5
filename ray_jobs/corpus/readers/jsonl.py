"""Read JSON Lines: one document a line, streamed.

Guaranteed: a line belongs to the part in which its first byte lies, so the parts of a file together yield every line
once, wherever it was cut; a bad or overlong line costs only itself and is never held in memory whole. A line without
an `id` is named by the offset of its first byte in the (decompressed) file, since its number is not known to a part
that starts in the middle. Not guaranteed: encodings other than UTF-8, which the format prescribes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO

from ray_jobs.corpus.document import RawDocument, Reject
from ray_jobs.corpus.formats import compression_of
from ray_jobs.corpus.planning import SourcePart
from ray_jobs.corpus.readers.rows import raw_document

MAX_LINE_BYTES = 64 * 1024 * 1024


class LineError(Exception):
    """A line that holds no object. `reason` is a code that can be counted."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def read(stream: BinaryIO, part: SourcePart) -> Iterator[RawDocument | Reject]:
    """Yield the document or the Reject of each line of the part; blank lines are skipped."""
    for offset, line in lines(stream, part):
        locator = f"byte {offset}"
        try:
            row = parse(line)
        except LineError as error:
            expected = " with 'text'" if error.reason == "not-an-object" else ""
            yield Reject(locator, error.reason, f"{error}{expected}")
            continue
        if row is not None:
            found = raw_document(row, locator)
            if isinstance(found, RawDocument) and found.id is None:
                found = RawDocument(found.text, f"{part.file.doc_id}#{offset}", found.title, found.metadata)
            yield found


def lines(stream: BinaryIO, part: SourcePart) -> Iterator[tuple[int, bytes | None]]:
    """Yield each line with the offset at which it starts; None instead of a line that is too long."""
    whole = compression_of(part.file.uri) is not None
    offset = 0
    if part.start > 0:
        # One byte back: if it is a line feed, the line that starts at part.start is ours.
        stream.seek(part.start - 1)
        offset = part.start - 1 + _skip_line(stream)
    while whole or offset < part.end:
        line = stream.readline(MAX_LINE_BYTES + 1)
        if not line:
            return
        if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            yield offset, None
            offset += len(line) + _skip_line(stream)
        else:
            yield offset, line
            offset += len(line)


def parse(line: bytes | None) -> dict[str, object] | None:
    """The object that a line of `lines` holds, None for a blank one. Raises LineError."""
    if line is None:
        raise LineError("too-long", f"the line is longer than {MAX_LINE_BYTES} bytes")
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


def _skip_line(stream: BinaryIO) -> int:
    skipped = 0
    while piece := stream.readline(MAX_LINE_BYTES):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped
