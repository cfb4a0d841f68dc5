"""Of several documents with one id, the first stays and each other is told why."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.ingest.decide import displaced

Row = tuple[str, int]  # id, content


def table(rows: list[Row], source: str) -> pa.Table:
    return pa.table(
        {
            "doc_id": pa.array([doc_id for doc_id, _ in rows], pa.string()),
            "version": pa.array([content.to_bytes(16, "big") for _, content in rows], pa.binary(16)),
            "row": pa.array(range(len(rows)), pa.int32()),
            "source": pa.array([source] * len(rows), pa.string()),
        }
    )


groups = st.lists(
    st.tuples(st.booleans(), st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 2)), max_size=6)), max_size=5
)


@given(found=groups)
def test_the_first_of_each_id_stays_and_the_others_have_their_reason(found: list[tuple[bool, list[Row]]]) -> None:
    # Groups kept from before come last, as the job orders them.
    ordered = sorted(found, key=lambda group: group[0])
    dropped = displaced([(n, kept, table(rows, f"s{n}")) for n, (kept, rows) in enumerate(ordered)])
    first: dict[str, tuple[int, int]] = {}
    expected = []
    for number, (kept, rows) in enumerate(ordered):
        for row, (doc_id, content) in enumerate(rows):
            if doc_id not in first:
                first[doc_id] = (number, content)
                continue
            stays, same = first[doc_id]
            reason = "replaced" if kept else ("duplicate" if same == content else "duplicate-id")
            expected.append((number, row, reason, f"s{stays}"))
    assert sorted((item.group, item.row, item.reason, item.kept_in) for item in dropped) == sorted(expected)
