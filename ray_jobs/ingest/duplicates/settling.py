"""Settle: which of the documents that are like others stay.

In the order of precedence a document stays unless one that stays is like it. Guaranteed: no two documents that an edge
joins stay; every document that goes has an edge to one that stays, the most similar of them. Memory: the edges of one
range of groups, and a byte for each document of a group of which something went.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ray_jobs.ingest.decide import DROPPED_SCHEMA, NEAR, SAME
from ray_jobs.ingest.duplicates.matching import EDGE_SCHEMA, Numbers, number, split
from ray_jobs.ingest.in_flight import store_table
from ray_jobs.ingest.ledger import INDEXED, read_partition
from ray_jobs.ingest.partition import cuts
from ray_jobs.ingest.receipts import SettledRange
from ray_jobs.storage import Storage

LIVING_SCHEMA = EDGE_SCHEMA.field("other_group"), EDGE_SCHEMA.field("other_row")


class Dropped:
    """The documents that went, by group and row."""

    def __init__(self) -> None:
        self._groups: dict[int, npt.NDArray[np.bool_]] = {}

    def add(self, numbers: Numbers) -> None:
        """`numbers` are ascending."""
        groups, rows = split(numbers)
        for group in np.unique(groups):
            own = rows[groups == group]
            marks = np.zeros(int(own.max()) + 1, np.bool_)
            marks[own] = True
            self._groups[int(group)] = marks

    def has(self, numbers: Numbers) -> npt.NDArray[np.bool_]:
        """Which of the documents went."""
        groups, rows = split(numbers)
        found = np.zeros(len(numbers), np.bool_)
        for group in np.unique(groups):
            marks = self._groups.get(int(group))
            if marks is not None:
                own = np.flatnonzero((groups == group) & (rows < len(marks)))
                found[own] = marks[rows[own]]
        return found


def living(storage: Storage, folder: str, kept_key: str, matched_keys: Sequence[str], documents: Sequence[str]) -> str:
    """Which documents of the snapshot before that have edges are searched still; returns the key.

    Of one partition of what stays of the ledger, `kept_key`; `documents[-n]` is the object of group -n.
    """
    kept = pq.read_table(
        storage.local(kept_key),
        columns=["doc_id", "documents_key", "row", "status"],
        filters=[("status", "=", INDEXED)],
    )
    found = []
    for key in matched_keys:
        edges = pq.read_table(
            storage.local(key), columns=["other_group", "other_row", "other_id"], filters=[("other_group", "<", 0)]
        )
        place = pc.index_in(edges.column("other_id"), value_set=kept.column("doc_id").combine_chunks())
        edges = edges.filter(pc.is_valid(place))
        entries = kept.take(pc.drop_null(place))
        objects = pa.array(documents, pa.string()).take(
            pc.add(edges.column("other_group").cast(pa.int64()), len(documents)).combine_chunks()
        )
        same = pc.and_(
            pc.equal(entries.column("documents_key"), objects),
            pc.equal(entries.column("row"), edges.column("other_row")),
        )
        found.append(edges.filter(same).select(["other_group", "other_row"]))
    empty = pa.schema(LIVING_SCHEMA).empty_table()
    distinct = pa.concat_tables([empty, *found]).group_by(empty.column_names).aggregate([])
    return store_table(storage, f"{folder}/living", distinct).key


def settle(
    storage: Storage, folder: str, matched_keys: Sequence[str], living_keys: Sequence[str], ranges: int
) -> list[SettledRange]:
    """Settle range after range, and store which documents went; DROPPED_SCHEMA."""
    alive = _living(storage, living_keys)
    dropped = Dropped()
    settled = []
    for place in range(ranges):
        edges = pa.concat_tables(read_partition(storage, matched_keys, place, EDGE_SCHEMA.names))
        gone = settle_edges(edges, alive, dropped)
        if gone.num_rows:
            key = store_table(storage, f"{folder}/settled", gone).key
            settled.append(SettledRange(key=key, groups=cuts(gone, "group", ("row", "reason", "kept_in"))))
    return settled


def settle_edges(edges: pa.Table, alive: Numbers, dropped: Dropped) -> pa.Table:
    """The documents of one range that go, DROPPED_SCHEMA; `alive` are those of the snapshot before, ascending.

    `dropped` says what went of the ranges before, and afterwards of this one, too.
    """
    later = number(edges.column("group").to_numpy(), edges.column("row").to_numpy())
    earlier = number(edges.column("other_group").to_numpy(), edges.column("other_row").to_numpy())
    chosen = np.where(earlier < 0, _within(earlier, alive), ~dropped.has(earlier))
    edges = edges.filter(pa.array(chosen))
    later, earlier = later[chosen], earlier[chosen]
    documents, one = np.unique(later, return_inverse=True)
    place = np.searchsorted(documents, earlier).clip(max=max(0, len(documents) - 1))
    inside = documents[place] == earlier if len(documents) else np.zeros(0, np.bool_)
    stays, goes = _decided(one, place, inside, len(documents))
    dropped.add(documents[goes])
    reasons = edges.filter(pa.array(goes[one] & (~inside | stays[place])))
    return _best(reasons)


def _decided(
    one: npt.NDArray[np.intp], place: npt.NDArray[np.intp], inside: npt.NDArray[np.bool_], count: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which of `count` documents stay and which go.

    An edge leads from document `one` to an earlier one: number `place`, if that is `inside`, else one that stays.
    """
    stays, goes = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    while not (stays | goes).all():
        goes[one[~inside | stays[place]]] = True
        waits = np.zeros(count, np.bool_)
        waits[one[inside & ~goes[place]]] = True
        stays |= ~goes & ~waits
    return stays, goes


def _best(edges: pa.Table) -> pa.Table:
    """For each document its most similar edge, of equal ones that to the earliest; DROPPED_SCHEMA."""
    order = [("group", "ascending"), ("row", "ascending"), ("same", "descending"), ("similarity", "descending")]
    edges = edges.sort_by([*order, ("other_group", "ascending"), ("other_row", "ascending")])
    numbers = number(edges.column("group").to_numpy(), edges.column("row").to_numpy())
    edges = edges.filter(pa.array(np.r_[True, numbers[1:] != numbers[:-1]] if len(numbers) else numbers.astype(bool)))
    reason = pc.if_else(edges.column("same"), SAME, NEAR)
    columns = [edges.column("group"), edges.column("row"), reason, edges.column("other_id"), edges.column("similarity")]
    return pa.table(columns, schema=DROPPED_SCHEMA)


def _living(storage: Storage, keys: Sequence[str]) -> Numbers:
    tables = [pq.read_table(storage.local(key)) for key in keys]
    found = [number(table.column("other_group").to_numpy(), table.column("other_row").to_numpy()) for table in tables]
    return np.unique(np.concatenate([np.empty(0, np.int64), *found]))


def _within(numbers: Numbers, known: Numbers) -> npt.NDArray[np.bool_]:
    place = np.searchsorted(known, numbers).clip(max=max(0, len(known) - 1))
    return known[place] == numbers if len(known) else np.zeros(len(numbers), np.bool_)
