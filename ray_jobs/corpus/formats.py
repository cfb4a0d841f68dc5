"""Which suffix is which format, and which may be compressed. A new format is one line here and one reader."""

from __future__ import annotations

FORMATS: dict[str, str] = {
    ".txt": "txt",
    ".text": "txt",
    ".md": "md",
    ".markdown": "md",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
    ".docx": "docx",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}

COMPRESSIONS: dict[str, str] = {".gz": "gzip", ".zst": "zstd"}

STREAMED = frozenset({"csv", "jsonl"})
"""Formats read as a stream of bytes, which may therefore be compressed."""


_BEGINNINGS: dict[bytes, str] = {
    b"%PDF-": "pdf",
    b"PK\x03\x04": "zip",
    b"\x1f\x8b\x08": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PAR1\x15": "parquet",
}
BEGINNING_BYTES = 8
"""Of a file, by which some formats are known."""

_OWN_BEGINNING = {"docx": "zip"}


def format_of(name: str) -> str:
    """Return the format of a file by its name, "" for an unknown one."""
    stem, compressed = _split(name)
    dot = stem.rfind(".")
    found = FORMATS.get(stem[dot:].lower(), "") if dot >= 0 else ""
    return found if not compressed or found in STREAMED else ""


def compression_of(name: str) -> str | None:
    """Return pyarrow's name of the compression that a file's name tells, or None."""
    return _split(name)[1]


def disguised(beginning: bytes, format: str) -> str:
    """Return the format that a file is of by its first bytes, "" where they do not speak against `format`."""
    found = next((name for mark, name in _BEGINNINGS.items() if beginning.startswith(mark)), "")
    return found if found != _OWN_BEGINNING.get(format, format) else ""


def _split(name: str) -> tuple[str, str | None]:
    name = name.partition("?")[0] if "://" in name else name
    for suffix, compression in COMPRESSIONS.items():
        if name.lower().endswith(suffix):
            return name[: -len(suffix)], compression
    return name, None
