from __future__ import annotations

import unicodedata

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.corpus.document import (
    CHUNK_SCHEMA,
    DOCUMENT_SCHEMA,
    Chunk,
    Document,
    RawDocument,
    chunk_id,
    chunks_to_table,
    documents_to_table,
    make_document,
    table_to_documents,
)

ANY_TEXT = st.text(st.characters())  # lone surrogates included
MARKS = st.text(st.sampled_from("ae\u0301\u0327\u1100\u1161\u11a8 \n\r\x00\ufeff\ud800가"))
SCALARS = st.one_of(
    ANY_TEXT, st.integers(), st.booleans(), st.floats(allow_infinity=False), st.none(), st.datetimes(), st.dates()
)
METADATA = st.dictionaries(ANY_TEXT, st.one_of(SCALARS, st.lists(SCALARS), st.dictionaries(ANY_TEXT, SCALARS)))


def document(text: str = "text", **values: object) -> Document:
    return make_document(RawDocument(text, **values), "id", "source", "txt")  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.one_of(ANY_TEXT, MARKS))
def test_text_is_normalised_and_can_be_stored(text: str) -> None:
    made = document(text).text
    assert unicodedata.is_normalized("NFC", made)
    assert not set(made) & {"\x00", "\r"}
    assert made.encode("utf-8").decode("utf-8") == made


@settings(deadline=None)
@given(st.lists(st.one_of(ANY_TEXT, MARKS), min_size=1))
def test_pages_start_where_their_own_text_starts(pages: list[str]) -> None:
    offsets = [len("".join(pages[:i])) for i in range(len(pages))]
    made = document("".join(pages), pages=tuple(offsets))
    assert unicodedata.is_normalized("NFC", made.text)
    for page, start, end in zip(pages, made.pages, (*made.pages[1:], len(made.text)), strict=True):
        alone = document(page).text
        assert made.text[start:end] in (alone, alone + "\n")


@settings(deadline=None)
@given(ANY_TEXT, METADATA)
def test_documents_survive_a_table(text: str, metadata: dict[str, object]) -> None:
    documents = [document(text, title=text, metadata=metadata), document("", pages=(0,))]
    table = documents_to_table(documents)
    assert table.schema == DOCUMENT_SCHEMA
    assert table_to_documents(table) == documents


def test_version_depends_on_every_part_of_the_content() -> None:
    variants = [
        document("text"),
        document("text2"),
        document("text", title="t"),
        document("text", pages=(0,)),
        document("text", metadata={"a": 1}),
        document("text", metadata={"a": 1.0}),
        document("text", metadata={"a": "1"}),
    ]
    assert len({d.version for d in variants}) == len(variants)
    assert {len(d.version) for d in variants} == {16}


def test_version_does_not_depend_on_where_the_document_lies() -> None:
    raw = RawDocument("text", metadata={"b": 1, "a": 2})
    moved = RawDocument("text", metadata={"a": 2, "b": 1})
    assert make_document(raw, "x", "y", "txt").version == make_document(moved, "z", "w", "md").version


def test_version_does_not_change_from_release_to_release() -> None:
    assert document("text", title="title").version.hex() == "2e011b577b108f9c517918512fc0b184"


def test_chunks_become_rows() -> None:
    made = document("one two", metadata={"year": 2020})
    chunk = Chunk(0, 0, 3, "one", ("A", "B"), None, "A\nB\none")
    table = chunks_to_table([(made, [chunk])])
    assert table.schema == CHUNK_SCHEMA
    assert table.to_pylist()[0]["heading"] == "A > B"
    assert table.to_pylist()[0]["metadata"] == '{"year":2020}'


def test_chunks_of_no_documents_are_an_empty_table() -> None:
    assert chunks_to_table([]).equals(pa.Table.from_pylist([], schema=CHUNK_SCHEMA))


def test_chunk_id_names_document_version_and_ordinal() -> None:
    assert chunk_id("a/b.md", bytes(range(16)), 7) == "a/b.md@000102030405#7"
