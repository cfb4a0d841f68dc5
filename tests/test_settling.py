"""Which of alike documents stay: those that no earlier one which stays is like, however the work is divided."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.ingest.duplicates.matching import EDGE_SCHEMA, number
from ray_jobs.ingest.duplicates.settling import Dropped, settle_edges

Document = tuple[int, int]
documents = st.tuples(st.integers(-2, 5), st.integers(0, 3))
graphs = st.sets(
    st.tuples(documents, documents).filter(lambda pair: pair[0] > pair[1] and pair[0][0] >= 0), max_size=40
)


def table(edges: list[tuple[Document, Document]]) -> pa.Table:
    rows = [
        {
            "group": later[0],
            "row": later[1],
            "other_group": earlier[0],
            "other_row": earlier[1],
            "other_id": f"{earlier[0]}.{earlier[1]}",
            "similarity": 0.8 + 0.001 * ((7 * later[1] + earlier[1] + 3 * earlier[0]) % 5),
            "same": False,
        }
        for later, earlier in edges
    ]
    return pa.Table.from_pylist(rows, schema=EDGE_SCHEMA)


def greedy(edges: set[tuple[Document, Document]], alive: set[Document]) -> dict[Document, set[Document]]:
    """The documents that go, and those that stay which they are like, one after the other."""
    gone: dict[Document, set[Document]] = {}
    for later in sorted({later for later, _ in edges}):
        staying = {
            other for one, other in edges if one == later and (other in alive if other[0] < 0 else other not in gone)
        }
        if staying:
            gone[later] = staying
    return gone


@given(edges=graphs, alive=st.sets(documents.filter(lambda one: one[0] < 0)), borders=st.sets(st.integers(1, 5)))
def test_it_is_what_deciding_one_by_one_gives_however_groups_are_divided(
    edges: set[tuple[Document, Document]], alive: set[Document], borders: set[int]
) -> None:
    living = np.array(sorted(int(number(np.array(group), np.array(row))) for group, row in alive), np.int64)
    dropped, found = Dropped(), []
    for end in [*sorted(borders), 6]:
        begin = max((border for border in {0, *borders} if border < end), default=0)
        part = [edge for edge in sorted(edges) if begin <= edge[0][0] < end]
        # An edge may have been found in several partitions.
        found += settle_edges(table(part + part[:2]), living, dropped).to_pylist()
    expected = greedy(edges, alive)
    assert {(row["group"], row["row"]) for row in found} == set(expected)
    assert len(found) == len(expected)
    for row in found:
        stands = {f"{group}.{own}" for group, own in expected[row["group"], row["row"]]}
        assert row["kept_in"] in stands
        assert row["reason"] == "near-duplicate"


def test_the_most_similar_one_is_named_and_equal_content_comes_first() -> None:
    rows = table([((1, 0), (0, 0)), ((1, 0), (0, 1)), ((1, 0), (0, 2))]).to_pylist()
    for row, similarity, same in zip(rows, (0.9, 1.0, 0.95), (False, False, True), strict=True):
        row |= {"similarity": similarity, "same": same}
    found = settle_edges(pa.Table.from_pylist(rows, schema=EDGE_SCHEMA), np.empty(0, np.int64), Dropped())
    assert [(row["reason"], row["kept_in"]) for row in found.to_pylist()] == [("same-content", "0.2")]
