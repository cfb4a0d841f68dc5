"""Read plain text: one document a file, its encoding detected."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from ray_jobs.corpus.document import RawDocument, Reject
from ray_jobs.corpus.limits import Limits
from ray_jobs.corpus.planning import SourcePart
from ray_jobs.corpus.readers.decoding import UndecodableError, decode


def read(stream: BinaryIO, part: SourcePart, limits: Limits) -> Iterator[RawDocument | Reject]:
    """Yield the text of the file, or one Reject if it is none."""
    try:
        yield RawDocument(text=decode(stream.read()))
    except UndecodableError as error:
        yield Reject("file", error.reason, str(error))
