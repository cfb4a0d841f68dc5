"""A small corpus with one file of every format, made on the spot; each holds a fact that no other file has."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

MARKDOWN = """---
author: Ada
---
# Lighthouse handbook

## Keeping the lamp

The lamp of the lighthouse burns whale oil and must be trimmed every four hours.

## Fog

In fog the keeper sounds a brass horn twice a minute.
"""
PAGE = """<html><head><title>Volcano guide</title></head><body><nav><a href="/">Home</a> <a href="/x">About</a></nav>
<main><article><h1>Volcano guide</h1><p>Mount Etna is the tallest active volcano in Europe. It stands on the east coast
of Sicily, and its slopes carry vineyards and orange groves.</p><p>Visitors reach the crater by cable car.</p></article>
</main></body></html>"""
CSV = """id,text,year,language
bees,Honey bees tell each other where flowers are by a waggle dance.,1973,en
glass,Venetian glass makers were forbidden to leave the island of Murano.,1291,en
wein,Der Riesling wird an den Hängen der Mosel angebaut.,1435,de
"""
GZIPPED = {"id": "saturn", "title": "Saturn", "text": "The rings of Saturn are made mostly of water ice.", "year": 1610}
COMPRESSED = {"id": "tea", "title": "Tea", "text": "Green tea is steamed so that it does not oxidise.", "year": 1191}
TABLE = {
    "id": "chess",
    "title": "Chess",
    "text": "A pawn that reaches the last rank is promoted.",
    "year": 1475,
}


def write_every_format(folder: Path) -> Path:
    """Fill `folder` with one file of every format."""
    (folder / "deep").mkdir(parents=True)
    (folder / "penguins.txt").write_text("Emperor penguins breed in the Antarctic winter. The male keeps the egg warm.")
    (folder / "deep" / "lighthouse.md").write_text(MARKDOWN)
    (folder / "volcano.html").write_text(PAGE)
    (folder / "bridge.pdf").write_bytes(
        pdf("This report describes bridges.", "The Forth Bridge was opened in 1890 by the Prince of Wales.")
    )
    write_word(folder / "bread.docx")
    (folder / "facts.csv").write_text(CSV)
    (folder / "planets.jsonl.gz").write_bytes(gzip.compress((json.dumps(GZIPPED) + "\n").encode()))
    with pa.CompressedOutputStream(str(folder / "drinks.jsonl.zst"), "zstd") as stream:
        stream.write((json.dumps(COMPRESSED) + "\n").encode())
    pq.write_table(pa.Table.from_pylist([TABLE]), folder / "games.parquet")
    return folder


def write_word(path: Path) -> None:
    """A Word document with a title and a heading."""
    import docx

    document = docx.Document()
    document.add_heading("Baking bread", 0)
    document.add_heading("Sourdough", 1)
    document.add_paragraph("Sourdough rises by wild yeast and lactic bacteria instead of baker's yeast.")
    document.save(str(path))


def pdf(*pages: str) -> bytes:
    """A PDF of one line a page, without a cross-reference table, which PDFium rebuilds."""
    kids = " ".join(f"{10 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        "1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj",
        f"2 0 obj<</Type/Pages/Kids[{kids}]/Count {len(pages)}>>endobj",
        "3 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj",
    ]
    for number, text in enumerate(pages):
        content = f"BT /F 12 Tf 72 700 Td ({text}) Tj ET"
        objects += [
            f"{10 + 2 * number} 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]"
            f"/Contents {11 + 2 * number} 0 R/Resources<</Font<</F 3 0 R>>>>>>endobj",
            f"{11 + 2 * number} 0 obj<</Length {len(content)}>>stream\n{content}\nendstream endobj",
        ]
    return "\n".join(["%PDF-1.4", *objects, "trailer<</Root 1 0 R>>", "%%EOF"]).encode()
