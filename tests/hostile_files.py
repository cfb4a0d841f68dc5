"""Files that harm whoever reads them without care, made on the spot, each with the reason that it is owed."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import pyarrow as pa
from every_format import pdf

GOOD = b'{"id": "%s", "text": "Good words stand before and after the damage."}\n'
SPARSE_BYTES = 1 << 30


def write_every_hostile_file(folder: Path) -> dict[str, set[str]]:
    """Fill `folder`; returns the reasons that each file is owed. Rows before the damage, and after it, are good."""
    folder.mkdir(parents=True)
    lines = b"".join(GOOD % b"gz%d" % n for n in range(3))
    packed = gzip.compress(lines * 1000)
    (folder / "truncated.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    (folder / "encrypted.pdf").write_bytes(encrypted_pdf())
    (folder / "broken.pdf").write_bytes(pdf("Some page.")[:40])
    (folder / "encrypted.docx").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500))
    (folder / "utf8.jsonl").write_bytes(GOOD % b"utf8-1" + b'{"text": "\xff\xfe"}\n' + GOOD % b"utf8-2")
    (folder / "nulls.txt").write_bytes(b"some text" + bytes(300) + b"more text")
    (folder / "nulls.jsonl").write_bytes(GOOD % b"nulls-1" + b'{"text": "a\x00b"}\n' + GOOD % b"nulls-2")
    write_bomb(folder / "bomb.jsonl.zst")
    (folder / "bomb.docx").write_bytes(word_bomb())
    write_long_line(folder / "line.jsonl", GOOD % b"line-1", GOOD % b"line-2")
    write_long_line(folder / "line.csv", b"id,text\n" + b"csv-1,words\n" * 6000, b"csv-2,words\n")
    write_long_line(folder / "line.txt", b"words", b"words")
    (folder / "image.pdf").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4)
    (folder / "image.txt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4)
    (folder / "packed.jsonl").write_bytes(gzip.compress(lines))
    (folder / "pdf.md").write_bytes(pdf("Some page."))
    (folder / "deep.html").write_bytes(b"<html><body>" + b"<div>" * 10_000 + b"<p>Words at the bottom.</p>")
    (folder / "picture.xyz").write_bytes(b"anything")
    return {
        "truncated.jsonl.gz": {"unreadable"},
        "encrypted.pdf": {"encrypted"},
        "broken.pdf": {"unreadable"},
        "encrypted.docx": {"encrypted"},
        "utf8.jsonl": {"bad-encoding"},
        "nulls.txt": {"binary"},
        "nulls.jsonl": {"bad-json"},
        "bomb.jsonl.zst": {"expands"},
        "bomb.docx": {"expands"},
        "line.jsonl": {"too-long"},
        "line.csv": {"too-long"},
        "line.txt": {"too-large"},
        "image.pdf": {"unreadable"},
        "image.txt": {"binary"},
        "packed.jsonl": {"wrong-format"},
        "pdf.md": {"wrong-format"},
        "deep.html": {"too-deep"},
        "picture.xyz": {"unknown-format"},
    }


def encrypted_pdf() -> bytes:
    """A PDF whose trailer asks for a password."""
    key = "41" * 32
    trailer = f"trailer<</Root 1 0 R/ID[<00><00>]/Encrypt<</Filter/Standard/V 1/R 2/P -4/O<{key}>/U<{key}>>>>>"
    return pdf("Secret.").replace(b"trailer<</Root 1 0 R>>", trailer.encode())


def write_bomb(path: Path) -> None:
    """A good line, then a gigabyte of zeros, in some 40 kB."""
    with pa.CompressedOutputStream(str(path), "zstd") as stream:
        stream.write(GOOD % b"bomb")
        for _ in range(SPARSE_BYTES >> 20):
            stream.write(bytes(1 << 20))


def word_bomb() -> bytes:
    """A Word document whose body is 300 MB of blanks."""
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("word/document.xml", "w", force_zip64=True) as body,
    ):
        for _ in range(300):
            body.write(b" " * (1 << 20))
    return packed.getvalue()


def heavy_word() -> bytes:
    """A Word document of six million empty paragraphs, in some 100 kB."""
    import docx

    plain, packed = io.BytesIO(), io.BytesIO()
    docx.Document().save(plain)
    with zipfile.ZipFile(plain) as archive, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as heavy:
        for entry in archive.infolist():
            content = archive.read(entry)
            if entry.filename == "word/document.xml":
                content = content.replace(b"<w:sectPr", b"<w:p/>" * 6_000_000 + b"<w:sectPr", 1)
            heavy.writestr(entry, content)
    return packed.getvalue()


def write_long_line(path: Path, before: bytes, after: bytes) -> None:
    """A line of a gigabyte that takes no room on the disk, between others."""
    with path.open("wb") as file:
        file.write(before)
        file.seek(SPARSE_BYTES, io.SEEK_CUR)
        file.write(b"\n" + after)
