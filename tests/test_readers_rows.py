"""Readers of formats whose rows are documents: CSV, JSON Lines, Parquet; a bad row costs only itself."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import read, read_bytes, reasons, text_of

from ray_jobs.corpus.document import Document, Reject
from ray_jobs.corpus.formats import STREAMED
from ray_jobs.corpus.limits import Limits
from ray_jobs.corpus.planning import SourcePart, whole
from ray_jobs.corpus.readers import parts_of, read_part
from ray_jobs.corpus.sources import list_sources


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_an_empty_table_has_no_documents(tmp_path: Path, suffix: str) -> None:
    assert read_bytes(tmp_path, f"a.{suffix}", b"") == []


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


def test_a_huge_line_costs_only_itself(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(JSONL + b"x" * 1000 + b"\n" + JSONL)
    (file,) = list_sources([str(tmp_path / "a.jsonl")])
    found = list(read_part(whole(file), Limits(line_bytes=100)))
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
    assert [d for part in parts for d in read_part(part, Limits())] == list(read_part(whole(file), Limits()))


def test_row_groups_of_parquet_together_yield_each_row_once(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"row {i}" for i in range(10)]}), path, row_group_size=3)
    (file,) = list_sources([str(path)])
    parts = parts_of(file, 1)
    assert [(part.start, part.end) for part in parts] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert sum(part.size for part in parts) <= file.size
    assert [d for part in parts for d in read_part(part, Limits())] == read(path)


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


def test_only_streamed_formats_may_be_compressed(tmp_path: Path) -> None:
    assert {"csv", "jsonl"} == STREAMED
    (tmp_path / "a.pdf.gz").write_bytes(b"")
    assert [f.format for f in list_sources([str(tmp_path)])] == [""]
