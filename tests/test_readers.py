from __future__ import annotations

import gzip
import io
import json
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.corpus.document import Document, Reject
from ray_jobs.corpus.formats import FORMATS, STREAMED
from ray_jobs.corpus.planning import SourcePart, whole
from ray_jobs.corpus.readers import READERS, parts_of, read_part
from ray_jobs.corpus.readers import jsonl as jsonl_reader
from ray_jobs.corpus.readers.decoding import decode
from ray_jobs.corpus.sources import SourceFile, list_sources

CHINESE = "检索增强生成把语料变成分片的索引，然后回答问题。"
PAGE = """<html><head><title>Sharding | Site</title></head><body>
<nav><a href=/>Home</a> <a href=/b>Products</a></nav>
<main><h1>Guide to sharding</h1><p>Sharding splits an index, so that each machine holds a part of it.</p>
<h2>Why</h2><p>Because memory is finite, and because disks are slow.</p></main>
<script>track()</script><footer>Privacy policy</footer></body></html>"""


def read(path: Path) -> list[Document | Reject]:
    (file,) = list_sources([str(path)])
    return list(read_part(whole(file)))


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


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_an_empty_table_has_no_documents(tmp_path: Path, suffix: str) -> None:
    assert read_bytes(tmp_path, f"a.{suffix}", b"") == []


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(FORMATS)), st.binary(max_size=200))
def test_no_bytes_make_a_reader_raise(tmp_path_factory: pytest.TempPathFactory, suffix: str, data: bytes) -> None:
    found = read_bytes(tmp_path_factory.mktemp("hostile"), f"a{suffix}", data)
    assert all(isinstance(f, Document | Reject) for f in found)


def test_a_file_that_vanished_is_rejected(tmp_path: Path) -> None:
    file = SourceFile("a.txt", str(tmp_path / "a.txt"), "", 5, "0", "txt")
    assert reasons(list(read_part(whole(file)))) == ["vanished"]


def test_a_format_without_a_reader_is_rejected() -> None:
    file = SourceFile("a.xyz", "/a.xyz", "", 5, "0", "")
    assert reasons(list(read_part(whole(file)))) == ["unknown-format"]


def test_a_file_too_large_to_be_read_whole_is_rejected() -> None:
    file = SourceFile("a.txt", "/a.txt", "", 2**40, "0", "txt")
    assert reasons(list(read_part(whole(file)))) == ["too-large"]


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


def test_a_csv_row_becomes_a_document_with_typed_metadata(tmp_path: Path) -> None:
    data = 'id,text,title,year,score,ok,zip,note\n7,"one, ""two""\nthree",T,2020,1.5,true,007,\n'
    (found,) = read_bytes(tmp_path, "a.csv", data.encode())
    assert isinstance(found, Document)
    assert (found.doc_id, found.text, found.title) == ("7", 'one, "two"\nthree', "T")
    assert found.metadata == {"ok": True, "score": 1.5, "year": 2020, "zip": "007"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_the_one_of_the_header(tmp_path: Path, delimiter: str) -> None:
    assert text_of(read_bytes(tmp_path, "a.csv", f"id{delimiter}text\n1{delimiter}x\n".encode())) == "x"


def test_a_bad_csv_row_costs_only_itself(tmp_path: Path) -> None:
    data = b"id,text\n1,caf\xc3\xa9 \xc3\xa9 \xc3\xa9 \xc3\xa9\n2,a,b,c\n3,\xff\n4\n5,last\n"
    assert reasons(read_bytes(tmp_path, "a.csv", data)) == ["", "bad-row", "bad-encoding", "no-text", ""]


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_table_without_text_says_which_columns_it_has(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("csv"):
        path.write_text("id,body\n1,x\n")
    else:
        pq.write_table(pa.table({"id": [1], "body": ["x"]}), path)
    (found,) = read(path)
    assert isinstance(found, Reject)
    assert found.reason == "no-text"
    assert "body, id" in found.message


JSONL = b"".join(
    json.dumps(row).encode() + b"\n" for row in ({"id": 1, "text": "a"}, {"text": "b"}, {"id": "x", "text": ""})
)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_json_lines_read_the_same_however_compressed(tmp_path: Path, name: str) -> None:
    data = {"gz": gzip.compress, "zst": lambda b: pa.compress(b, codec="zstd", asbytes=True)}.get(
        name.rpartition(".")[2], bytes
    )(JSONL)
    found = read_bytes(tmp_path, name, data)
    assert [(f.doc_id, f.text) for f in found if isinstance(f, Document)] == [
        ("1", "a"),
        (f"{name}#{JSONL.index(b'{', 1)}", "b"),
        ("x", ""),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "bad-json"),
        (b"[1]", "not-an-object"),
        (b"null", "not-an-object"),
        (b'{"id": 1}', "no-text"),
        (b'{"text": null}', "no-text"),
        (b'{"text": 3}', "bad-text"),
        (b'{"id": {}, "text": "a"}', "bad-id"),
        (b'{"id": true, "text": "a"}', "bad-id"),
        (b'{"text": "\xff"}', "bad-encoding"),
        (b'{"text": "a", "n": Infinity}', "bad-metadata"),
        (b"[" * 100_000, "bad-json"),
        (b"\x00\x00", "bad-json"),
    ],
)
def test_a_bad_line_costs_only_itself(tmp_path: Path, line: bytes, reason: str) -> None:
    found = read_bytes(tmp_path, "a.jsonl", JSONL + line + b"\n" + JSONL)
    assert reasons(found) == ["", "", "", reason, "", "", ""]


def test_a_huge_line_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl_reader, "MAX_LINE_BYTES", 100)
    found = read_bytes(tmp_path, "a.jsonl", JSONL + b"x" * 1000 + b"\n" + JSONL)
    assert reasons(found) == ["", "", "", "too-long", "", "", ""]


def test_a_lone_surrogate_and_a_null_do_not_stop_a_document(tmp_path: Path) -> None:
    assert text_of(read_bytes(tmp_path, "a.jsonl", b'{"text": "a\\ud800b\\u0000c"}')) == "a\ufffdbc"


def test_a_truncated_gzip_keeps_what_was_read_and_says_where_it_stopped(tmp_path: Path) -> None:
    lines = b"".join(b'{"text": "%d"}\n' % (i * 7919) for i in range(100_000))
    found = read_bytes(tmp_path, "a.jsonl.gz", gzip.compress(lines)[:-500])
    assert reasons(found)[-1] == "unreadable"
    assert set(reasons(found)[:-1]) == {""}


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.one_of(st.just(""), st.text(max_size=9).map(lambda t: json.dumps({"text": t}))), max_size=8),
    st.booleans(),
    st.data(),
)
def test_parts_of_a_file_together_yield_each_line_once(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], ends: bool, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("parts") / "a.jsonl"
    content = ("\n".join(lines) + ("\n" if ends else "")).encode()
    path.write_bytes(content)
    cuts = data.draw(st.lists(st.integers(0, len(content)), max_size=4).map(sorted))
    (file,) = list_sources([str(path)])
    parts = [SourcePart(file, a, b, b - a) for a, b in pairwise([0, *cuts, len(content)])]
    assert [d for part in parts for d in read_part(part)] == list(read_part(whole(file)))


def test_row_groups_of_parquet_together_yield_each_row_once(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"row {i}" for i in range(10)]}), path, row_group_size=3)
    (file,) = list_sources([str(path)])
    parts = parts_of(file, 1)
    assert [(part.start, part.end) for part in parts] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert sum(part.size for part in parts) <= file.size
    assert [d for part in parts for d in read_part(part)] == read(path)


def test_a_parquet_file_without_a_footer_stays_whole(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    (file,) = list_sources([str(tmp_path / "a.parquet")])
    assert parts_of(file, 1) == [whole(file)]


def test_parquet_types_become_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    moment = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
    table = pa.table(
        {
            "id": pa.array([1.0, None]),
            "text": pa.array(["a", None], pa.large_string()),
            "nested": [{"x": {"y": 1}}, None],
            "tags": [["p", "q"], None],
            "when": pa.array([moment, None], pa.timestamp("ns", "UTC")),
            "image": pa.array([b"\xff", None]),
            "kind": pa.array(["k", None]).dictionary_encode(),
        }
    )
    pq.write_table(table, path)
    first, second = read(path)
    assert isinstance(first, Document)
    assert first.doc_id == "1"
    assert first.metadata == {"kind": "k", "nested.x.y": 1, "tags": ["p", "q"], "when": moment}
    assert isinstance(second, Reject)
    assert (second.locator, second.reason) == ("row 2", "no-text")


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
    found = {f.doc_id: text_of(list(read_part(whole(f)))) for f in list_sources(["pydoc:sample_pkg"])}
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
    assert reasons(list(read_part(whole(file)))) == ["bad-python"]


def test_only_streamed_formats_may_be_compressed(tmp_path: Path) -> None:
    assert {"csv", "jsonl"} == STREAMED
    (tmp_path / "a.pdf.gz").write_bytes(b"")
    assert [f.format for f in list_sources([str(tmp_path)])] == [""]
