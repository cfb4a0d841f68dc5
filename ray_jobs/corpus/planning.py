"""Cut files into parts and pack parts into groups of work. Pure: nothing is opened here.

Guaranteed: the parts of a file cover it without gap or overlap, in order; groups hold every part once, in order, and
are never empty; a group exceeds `max_bytes` only if it is a single part that cannot be cut; a file that comes, goes or
changes its size moves the borders of the groups near it alone. Not guaranteed: that a part is small: formats without a
seam (a PDF, a compressed stream) are one part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ray_jobs.corpus.formats import compression_of
from ray_jobs.corpus.sources import SourceFile
from ray_jobs.errors import UsageError

OPENING_BYTES = 4096
"""What opening a file counts as in a group, so that a million empty files are not one group."""


@dataclass(frozen=True, slots=True)
class SourcePart:
    """A piece of a file, read by one task.

    `start` and `end` are bytes of a plain JSONL file (a line belongs to the part in which its first byte lies), row
    groups of a Parquet file, and 0 and the size of any other file. `size` is in bytes, as stored.
    """

    file: SourceFile
    start: int
    end: int
    size: int


def split(file: SourceFile, max_bytes: int, row_group_bytes: Sequence[int] = ()) -> list[SourcePart]:
    """Cut a file into parts of at most `max_bytes` where its format has seams.

    `row_group_bytes` are the sizes of a Parquet file's row groups; without them it stays whole. Raises UsageError for
    a bound that is not positive.
    """
    _check(max_bytes)
    if file.format == "jsonl" and compression_of(file.uri) is None and file.size > max_bytes:
        pieces = -(-file.size // max_bytes)
        bounds = [file.size * i // pieces for i in range(pieces + 1)]
        return [SourcePart(file, start, end, end - start) for start, end in pairwise(bounds)]
    if file.format == "parquet" and row_group_bytes:
        runs = _runs(row_group_bytes, max_bytes)
        return [SourcePart(file, start, end, sum(row_group_bytes[start:end])) for start, end in runs]
    return [whole(file)]


def whole(file: SourceFile) -> SourcePart:
    """Return the one part that is all of a file."""
    return SourcePart(file, 0, file.size, file.size)


def pack(parts: Iterable[SourcePart], max_bytes: int) -> Iterator[tuple[SourcePart, ...]]:
    """Group parts in order, at most `max_bytes` a group, each part counting OPENING_BYTES at least.

    A part begins a group of its own accord with the chance weight / `max_bytes`, drawn by a hash of its name, so that
    borders depend on the parts beside them and not on all that come before (as content-defined chunking cuts streams,
    Muthitacharoen et al. 2001, "A low-bandwidth network file system").
    """
    _check(max_bytes)
    group: list[SourcePart] = []
    filled = 0
    for part in parts:
        weight = max(part.size, OPENING_BYTES)
        if group and (filled + weight > max_bytes or _drawn(part) < weight / max_bytes):
            yield tuple(group)
            group, filled = [], 0
        group.append(part)
        filled += weight
    if group:
        yield tuple(group)


def _drawn(part: SourcePart) -> float:
    """A number in [0, 1) that is always the same for a part."""
    digest = hashlib.blake2b(f"{part.file.doc_id}\0{part.start}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / (1 << 64)


def _runs(sizes: Sequence[int], max_bytes: int) -> list[tuple[int, int]]:
    """Return consecutive index ranges whose sizes sum to at most `max_bytes`, or that hold one oversized item."""
    starts, filled = [0], 0
    for index, size in enumerate(sizes):
        if index > starts[-1] and filled + size > max_bytes:
            starts.append(index)
            filled = 0
        filled += size
    return list(pairwise((*starts, len(sizes))))


def _check(max_bytes: int) -> None:
    if max_bytes < 1:
        raise UsageError(f"max_bytes is {max_bytes}: expected a positive number of bytes")
