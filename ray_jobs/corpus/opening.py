"""Open files of any filesystem that pyarrow knows, decompressed where their name says that they are compressed.

Guaranteed: no more of a compressed file is unpacked than was allowed, but for one buffer. Not guaranteed: that a file
that was listed can be opened.
"""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, cast

from pyarrow import NativeFile, fs

from ray_jobs.corpus.formats import compression_of
from ray_jobs.corpus.listing import is_uri
from ray_jobs.corpus.sources import SourceFile

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER_BYTES = 1 << 20
PIECE_BYTES = 1 << 14  # unpacked at a time: of a piece that ends in damage nothing is read


class ExpandsError(Exception):
    """A compressed file unpacks to more than it may."""


def open_file(
    file: SourceFile, unpacked_bytes: int | None = None, buffer_bytes: int = BUFFER_BYTES
) -> io.BufferedReader:
    """Open a file for reading; one that is compressed raises ExpandsError beyond `unpacked_bytes`. Raises OSError."""
    filesystem, path = fs.FileSystem.from_uri(file.uri) if is_uri(file.uri) else (fs.LocalFileSystem(), file.uri)
    compression = compression_of(file.uri)
    if compression is None:
        return _buffered(filesystem.open_input_file(path), buffer_bytes)
    stream = filesystem.open_input_stream(path, compression=compression)
    return _buffered(_Unpacked(stream, file.size, unpacked_bytes or sys.maxsize), buffer_bytes)


def _buffered(stream: object, buffer_bytes: int) -> io.BufferedReader:
    # pyarrow's own readline reads to the end of the stream.
    return io.BufferedReader(cast("io.RawIOBase", stream), buffer_bytes)


class _Unpacked(io.RawIOBase):
    """What a compressed file unpacks to, counted."""

    def __init__(self, stream: NativeFile, size: int, bound: int) -> None:
        self._stream = stream
        self._size = size
        self._bound = bound
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        read = int(self._stream.readinto(memoryview(buffer)[:PIECE_BYTES]))
        self._count += read
        if self._count > self._bound:
            raise ExpandsError(f"{self._size} bytes unpack to more than {self._bound}: no more is read")
        return read

    def close(self) -> None:
        self._stream.close()
        super().close()
