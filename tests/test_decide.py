"""Which documents are embedded, which stay as they are, and which are dead: against a model made of dictionaries."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.ingest.decide import decide
from ray_jobs.ingest.ledger import LEDGER_SCHEMA

Row = tuple[str, int, str]  # id, content, source

ids, contents, sources = st.sampled_from("abcdef"), st.integers(0, 2), st.sampled_from("XYZ")
documents = st.lists(st.tuples(ids, contents, sources), max_size=6)
groups = st.lists(st.tuples(st.booleans(), documents), max_size=5)
ledger = st.dictionaries(ids, st.tuples(contents, sources), max_size=6)


def version(content: int) -> bytes:
    return content.to_bytes(16, "big")


def table(rows: list[Row]) -> pa.Table:
    return pa.table(
        {
            "doc_id": pa.array([doc_id for doc_id, _, _ in rows], pa.string()),
            "version": pa.array([version(content) for _, content, _ in rows], pa.binary(16)),
            "row": pa.array(range(len(rows)), pa.int32()),
            "source": pa.array([source for _, _, source in rows], pa.string()),
        }
    )


def known_as(entries: dict[str, tuple[int, str]]) -> pa.Table:
    rows = [
        {
            "doc_id": doc_id,
            "version": version(content),
            "row": 0,
            "source_name": "s",
            "source": source,
            "documents_key": "d",
            "chunks": 1,
            "status": "indexed",
            "shard": "one",
            "first_row": number,
        }
        for number, (doc_id, (content, source)) in enumerate(entries.items())
    ]
    return pa.Table.from_pylist(rows, schema=LEDGER_SCHEMA)


@given(found=groups, before=ledger, gone=st.none() | st.sets(sources))
def test_every_document_is_embedded_or_has_its_reason_and_the_ledger_follows(
    found: list[tuple[bool, list[Row]]], before: dict[str, tuple[int, str]], gone: set[str] | None
) -> None:
    # Groups taken over come last, as the job orders them.
    ordered = sorted(found, key=lambda group: group[0])
    decision = decide(
        [(n, taken_over, table(rows)) for n, (taken_over, rows) in enumerate(ordered)],
        known_as(before),
        None if gone is None else pa.array(sorted(gone), pa.string()),
    )
    first: dict[str, Row] = {}
    expected: list[tuple[int, int, str, str]] = []
    for number, (taken_over, rows) in enumerate(ordered):
        for place, row in enumerate(rows):
            doc_id, content, source = row
            if doc_id in first:
                same = "duplicate" if first[doc_id][1] == content else "duplicate-id"
                expected.append((number, place, "replaced" if taken_over else same, first[doc_id][2]))
                continue
            first[doc_id] = row
            if before.get(doc_id) == (content, source):
                expected.append((number, place, "unchanged", source))
    rows_of = decision.dropped.drop_columns(["similarity"]).to_pylist()
    assert [tuple(row.values()) for row in rows_of] == sorted(expected)
    dead = {
        doc_id
        for doc_id, (content, source) in before.items()
        if (doc_id in first and first[doc_id][1:] != (content, source))
        or (doc_id not in first and gone is not None and source in gone)
    }
    assert set(decision.dead.column("doc_id").to_pylist()) == dead
    assert set(decision.kept.column("doc_id").to_pylist()) == before.keys() - dead


@given(groups)
def test_read_again_without_a_change_nothing_is_embedded_and_nothing_dies(found: list[tuple[bool, list[Row]]]) -> None:
    given_groups = [(n, False, table(rows)) for n, (_, rows) in enumerate(found)]
    first: dict[str, tuple[int, str]] = {}
    for _, rows in found:
        for doc_id, content, source in rows:
            first.setdefault(doc_id, (content, source))
    decision = decide(given_groups, known_as(first), pa.array(["X", "Y", "Z"]))
    reasons = Counter(decision.dropped.column("reason").to_pylist())
    assert decision.dropped.num_rows == sum(len(rows) for _, rows in found)
    assert reasons["unchanged"] == len(first)
    assert decision.dead.num_rows == 0
