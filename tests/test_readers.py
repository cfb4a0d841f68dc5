"""Readers of every format: what they make of a file, and what they reject with its reason."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import read_bytes, reasons, text_of

from ray_jobs.corpus.document import Document, Reject
from ray_jobs.corpus.formats import FORMATS
from ray_jobs.corpus.limits import Limits
from ray_jobs.corpus.planning import whole
from ray_jobs.corpus.readers import READERS, read_part
from ray_jobs.corpus.readers.decoding import decode
from ray_jobs.corpus.sources import SourceFile, list_sources

CHINESE = "检索增强生成把语料变成分片的索引，然后回答问题。"
PAGE = """<html><head><title>Sharding | Site</title></head><body>
<nav><a href=/>Home</a> <a href=/b>Products</a></nav>
<main><h1>Guide to sharding</h1><p>Sharding splits an index, so that each machine holds a part of it.</p>
<h2>Why</h2><p>Because memory is finite, and because disks are slow.</p></main>
<script>track()</script><footer>Privacy policy</footer></body></html>"""


def pdf(*pages: str, trailer: str = "") -> bytes:
    """A PDF made by hand, without a cross-reference table: PDFium rebuilds it."""
    kids = " ".join(f"{10 + 2 * i} 0 R" for i in range(len(pages)))
    objects = [
        "1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj",
        f"2 0 obj<</Type/Pages/Kids[{kids}]/Count {len(pages)}>>endobj",
        "3 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj",
        "4 0 obj<</Title(A title)/Author(Someone)>>endobj",
    ]
    for i, text in enumerate(pages):
        content = f"BT /F 12 Tf 72 700 Td ({text}) Tj ET"
        objects.append(
            f"{10 + 2 * i} 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents {11 + 2 * i} 0 R"
            "/Resources<</Font<</F 3 0 R>>>>>>endobj"
        )
        objects.append(f"{11 + 2 * i} 0 obj<</Length {len(content)}>>stream\n{content}\nendstream endobj")
    return "\n".join(["%PDF-1.4", *objects, f"trailer<</Root 1 0 R/Info 4 0 R{trailer}>>", "%%EOF"]).encode()


def word() -> bytes:
    import docx

    document = docx.Document()
    document.core_properties.author = "Someone"
    document.add_heading("A title", 0)
    document.add_paragraph("First paragraph.")
    document.add_heading("Inner", 2)
    document.add_paragraph("point", style="List Bullet")
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip((c for row in table.rows for c in row.cells), "abcd", strict=True):
        cell.text = text
    document.add_paragraph("Last.")
    stream = io.BytesIO()
    document.save(stream)
    return stream.getvalue()


def test_every_format_has_a_reader() -> None:
    assert set(FORMATS.values()) | {"pydoc"} == set(READERS)


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "gb18030"])
def test_chinese_text_is_read_in_its_encoding(tmp_path: Path, codec: str) -> None:
    text = f"Tandem: {CHINESE}\n" * 5
    assert text_of(read_bytes(tmp_path, "a.txt", text.encode(codec))) == text


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        ("Le café est très fermé, déjà vu, naïve façade.", "cp1252"),
        ("これは日本語の文章です。検索します。", "shift_jis"),
        ("한국어 문장을 검색합니다.", "euc_kr"),
        ("Это русский текст для проверки кодировки.", "cp1251"),
    ],
)
def test_an_encoding_that_is_not_declared_is_detected(tmp_path: Path, text: str, codec: str) -> None:
    assert text_of(read_bytes(tmp_path, "a.txt", text.encode(codec))) == text


def test_a_broken_byte_in_utf8_costs_one_character(tmp_path: Path) -> None:
    data = CHINESE.encode() + b"\xff" + CHINESE.encode()
    assert text_of(read_bytes(tmp_path, "a.txt", data)) == f"{CHINESE}\ufffd{CHINESE}"


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_utf8_is_always_believed(text: str) -> None:
    assert decode(f"é{text}".encode()) == f"é{text}"


@pytest.mark.parametrize("suffix", ["txt", "md", "html", "csv"])
def test_binary_under_the_name_of_a_text_is_rejected(tmp_path: Path, suffix: str) -> None:
    assert reasons(read_bytes(tmp_path, f"a.{suffix}", bytes(range(256)) * 20)) == ["binary"]


@pytest.mark.parametrize("suffix", ["pdf", "docx", "parquet"])
@pytest.mark.parametrize("data", [b"", b"just text", bytes(range(256)) * 20], ids=["empty", "text", "binary"])
def test_what_is_not_of_its_format_is_rejected(tmp_path: Path, suffix: str, data: bytes) -> None:
    assert reasons(read_bytes(tmp_path, f"a.{suffix}", data)) == ["unreadable"]


@pytest.mark.parametrize("suffix", ["txt", "md", "html"])
def test_an_empty_file_is_an_empty_document(tmp_path: Path, suffix: str) -> None:
    assert text_of(read_bytes(tmp_path, f"a.{suffix}", b"")) == ""


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(FORMATS)), st.binary(max_size=200))
def test_no_bytes_make_a_reader_raise(tmp_path_factory: pytest.TempPathFactory, suffix: str, data: bytes) -> None:
    found = read_bytes(tmp_path_factory.mktemp("hostile"), f"a{suffix}", data)
    assert all(isinstance(f, Document | Reject) for f in found)


def test_a_file_that_vanished_is_rejected(tmp_path: Path) -> None:
    file = SourceFile("a.txt", str(tmp_path / "a.txt"), "", 5, "0", "txt")
    assert reasons(list(read_part(whole(file), Limits()))) == ["vanished"]


def test_a_format_without_a_reader_is_rejected() -> None:
    file = SourceFile("a.xyz", "/a.xyz", "", 5, "0", "")
    assert reasons(list(read_part(whole(file), Limits()))) == ["unknown-format"]


def test_a_file_too_large_to_be_read_whole_is_rejected() -> None:
    file = SourceFile("a.txt", "/a.txt", "", 2**40, "0", "txt")
    assert reasons(list(read_part(whole(file), Limits()))) == ["too-large"]


def test_front_matter_becomes_title_and_metadata(tmp_path: Path) -> None:
    data = b"---\ntitle: T\nyear: 2020\ntags: [a, b]\ndate: 2024-01-02\n---\n# H\n\nText.\n"
    (found,) = read_bytes(tmp_path, "a.md", data)
    assert isinstance(found, Document)
    assert (found.title, found.text) == ("T", "# H\n\nText.\n")
    assert found.metadata == {"date": datetime(2024, 1, 2, tzinfo=UTC), "tags": ["a", "b"], "year": 2020}


@pytest.mark.parametrize("front", ["a: [", "just words", "a: &x [1]\nb: *x", "a: !!python/name:os.system x"])
def test_front_matter_that_is_no_plain_object_stays_in_the_text(tmp_path: Path, front: str) -> None:
    text = f"---\n{front}\n---\n# H\n"
    assert text_of(read_bytes(tmp_path, "a.md", text.encode())) == text


def test_the_first_top_heading_is_the_title(tmp_path: Path) -> None:
    (found,) = read_bytes(tmp_path, "a.md", b"```\n# code\n```\n## Two\n# One #\n")
    assert isinstance(found, Document)
    assert found.title == "One"


def test_a_page_is_its_main_content(tmp_path: Path) -> None:
    (found,) = read_bytes(tmp_path, "a.html", PAGE.encode())
    assert isinstance(found, Document)
    assert found.title == "Guide to sharding"
    assert "## Why\n" in found.text
    assert "each machine holds a part" in found.text
    assert not any(word in found.text for word in ("Products", "track", "Privacy"))


def test_names_with_underscores_are_not_escaped_and_code_is_left_alone(tmp_path: Path) -> None:
    page = r"<main><h1>Names</h1><p>Call map_batches and read_a_file often.</p><pre><code>a\_b</code></pre></main>"
    text = text_of(read_bytes(tmp_path, "a.html", page.encode()))
    assert "Call map_batches and read_a_file often." in text
    assert r"a\_b" in text


def test_a_page_is_read_in_the_encoding_it_declares(tmp_path: Path) -> None:
    page = f"<html><head><meta charset=gb2312></head><body><p>{CHINESE}</p></body></html>"
    assert text_of(read_bytes(tmp_path, "a.html", page.encode("gb2312"))) == CHINESE


def test_pages_of_a_pdf_are_kept(tmp_path: Path) -> None:
    (found,) = read_bytes(tmp_path, "a.pdf", pdf("First page.", "", "Third page."))
    assert isinstance(found, Document)
    bounds = (*found.pages, len(found.text))
    assert [found.text[a:b].strip() for a, b in pairwise(bounds)] == ["First page.", "", "Third page."]
    assert (found.title, found.metadata) == ("A title", {"author": "Someone"})


def test_an_encrypted_pdf_is_rejected_as_such(tmp_path: Path) -> None:
    key = "41" * 32
    trailer = f"/ID[<00><00>]/Encrypt<</Filter/Standard/V 1/R 2/P -4/O<{key}>/U<{key}>>>"
    assert reasons(read_bytes(tmp_path, "a.pdf", pdf("Secret.", trailer=trailer))) == ["encrypted"]


def test_a_word_document_keeps_headings_lists_and_tables_in_order(tmp_path: Path) -> None:
    (found,) = read_bytes(tmp_path, "a.docx", word())
    assert isinstance(found, Document)
    assert found.text == ("# A title\n\nFirst paragraph.\n\n## Inner\n\n- point\n\n| a | b |\n| c | d |\n\nLast.")
    assert (found.title, found.metadata) == ("A title", {"author": "Someone"})


def test_an_encrypted_word_document_is_rejected_as_such(tmp_path: Path) -> None:
    data = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500)
    assert reasons(read_bytes(tmp_path, "a.docx", data)) == ["encrypted"]


def test_a_package_is_read_from_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "sample_pkg"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text(
        '"""About."""\nfrom sample_pkg._core import hidden as shown\nraise SystemExit("imported")\n'
    )
    (package / "_core.py").write_text('def hidden(a, /, b=1, *c, d, **e):\n    """Does it."""\n')
    (package / "inner" / "__init__.py").write_text("")
    (package / "inner" / "mod.py").write_text(
        'class A(dict):\n    """A class.\n\n    Parameters\n    ----------\n    x : int\n    """\n\n'
        '    def m(self, *, k="v"):\n        """Uses :class:`~x.Y`."""\n\n    def _p(self):\n        """No."""\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = {f.doc_id: text_of(list(read_part(whole(f), Limits()))) for f in list_sources(["pydoc:sample_pkg"])}
    assert found == {
        "sample_pkg/__init__.py": "# sample_pkg\n\nAbout.\n\n## shown\n\n`shown(a, /, b=1, *c, d, **e)`\n\nDoes it.",
        "sample_pkg/inner/__init__.py": "",
        "sample_pkg/inner/mod.py": "# sample_pkg.inner.mod\n\n## A\n\n`class A(dict)`\n\nA class.\n\n"
        "**Parameters**\n\nx : int\n\n### A.m\n\n`A.m(*, k='v')`\n\nUses `x.Y`.",
    }


def test_a_module_that_is_not_python_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("def (:")
    file = SourceFile("bad", str(path), "", 6, "0", "pydoc")
    assert reasons(list(read_part(whole(file), Limits()))) == ["bad-python"]
