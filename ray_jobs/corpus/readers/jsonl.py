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


def read(stream: BinaryIO, part: SourcePart) -> Iterator[RawDocument | Reject]:
    """Yield the document or the Reject of each line of the part; blank lines are skipped."""
    for offset, line in _lines(stream, part):
        locator = f"byte {offset}"
        if line is None:
            yield Reject(locator, "too-long", f"the line is longer than {MAX_LINE_BYTES} bytes")
        elif not line.isspace():
            found = _parse(line, locator)
            if isinstance(found, RawDocument) and found.id is None:
                found = RawDocument(found.text, f"{part.file.doc_id}#{offset}", found.title, found.metadata)
            yield found


def _lines(stream: BinaryIO, part: SourcePart) -> Iterator[tuple[int, bytes | None]]:
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


def _skip_line(stream: BinaryIO) -> int:
    skipped = 0
    while piece := stream.readline(MAX_LINE_BYTES):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def _parse(line: bytes, locator: str) -> RawDocument | Reject:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return Reject(locator, "bad-encoding", f"the line is not UTF-8 (byte {error.start} of it)")
    except (ValueError, RecursionError) as error:
        return Reject(locator, "bad-json", f"the line is not JSON: {error}")
    if not isinstance(row, dict):
        return Reject(
            locator, "not-an-object", f"the line holds a {type(row).__name__}: expected an object with 'text'"
        )
    return raw_document(row, locator)
