"""Files read by the reader of their format, and what came of it."""

from __future__ import annotations

from pathlib import Path

from ray_jobs.corpus.document import Document, Reject
from ray_jobs.corpus.limits import Limits
from ray_jobs.corpus.planning import whole
from ray_jobs.corpus.readers import read_part
from ray_jobs.corpus.sources import list_sources


def read(path: Path) -> list[Document | Reject]:
    (file,) = list_sources([str(path)])
    return list(read_part(whole(file), Limits()))


def read_bytes(tmp_path: Path, name: str, data: bytes) -> list[Document | Reject]:
    path = tmp_path / name
    path.write_bytes(data)
    return read(path)


def text_of(found: list[Document | Reject]) -> str:
    (document,) = found
    assert isinstance(document, Document), document
    return document.text


def reasons(found: list[Document | Reject]) -> list[str]:
    return [f.reason if isinstance(f, Reject) else "" for f in found]
