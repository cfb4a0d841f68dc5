"""Decide, for the documents of one hash partition: which are embedded, which stay as they are, and which are dead.

Guaranteed: pure. Of several documents with one id the first in the order of groups and rows stays, those read in this
run before those taken over from the snapshot before. A document that the snapshot knows in the same version from the
same source stays as it is, deleted if it was deleted; another version takes its place. Not guaranteed: anything about
equal content under different ids: that is what `duplicates` is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ray_jobs.ingest.ledger import DELETED, LEDGER_SCHEMA, as_deleted

SAME, NEAR = "same-content", "near-duplicate"
ALIKE = frozenset({SAME, NEAR})
"""Reasons why a document is dropped that another id stands for."""
# Why a document that was read, or taken over, is not embedded.
DROPPED_SCHEMA = pa.schema(
    [
        pa.field("group", pa.int32(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        # "unchanged", "duplicate" (same id, same content), "duplicate-id" (another content), "replaced" (an older one);
        # and those of ALIKE
        pa.field("reason", pa.string(), nullable=False),
        pa.field("kept_in", pa.string(), nullable=False),  # the source of the one that stays; of other ids its id
        pa.field("similarity", pa.float32()),  # to that one, where it has another id
    ]
)
COLUMNS = ("doc_id", "version", "row", "source")
"""What is asked of documents that were read."""


@dataclass(frozen=True)
class Decision:
    """What becomes of the documents of a partition."""

    dropped: pa.Table  # DROPPED_SCHEMA
    kept: pa.Table  # LEDGER_SCHEMA, of the snapshot before
    dead: pa.Table  # LEDGER_SCHEMA, of the snapshot before


def decide(
    groups: Sequence[tuple[int, bool, pa.Table]],
    known: pa.Table,
    gone: pa.Array | None = None,
    deleted: pa.Array | None = None,
) -> Decision:
    """What becomes of documents that were read and of those that the snapshot before holds.

    `groups` are (group number, taken over from before, rows with `COLUMNS`), in order of precedence; `known` is that
    partition of the ledger, LEDGER_SCHEMA; documents of the sources in `gone` die unless they were read again, and
    those whose ids are in `deleted` die by the user's wish.
    """
    read = _in_order(groups)
    ids = read.column("doc_id").combine_chunks()
    first = _first(ids)
    stays = read.filter(pa.array(first))
    place = pc.index_in(stays.column("doc_id"), value_set=known.column("doc_id"))
    matched = known.select(["version", "source"]).take(place)
    unchanged = _true(
        pc.and_(
            pc.equal(stays.column("version"), matched.column("version")),
            pc.equal(stays.column("source"), matched.column("source")),
        )
    )
    dead = np.zeros(known.num_rows, np.bool_)
    held = _true(pc.is_valid(place))
    dead[pc.drop_null(place).to_numpy()] = ~unchanged[held]
    if gone is not None:
        again = _true(pc.is_in(known.column("doc_id"), value_set=stays.column("doc_id")))
        dead |= _true(pc.is_in(known.column("source"), value_set=gone)) & ~again
    buried = np.zeros(known.num_rows, np.bool_)
    if deleted is not None:
        wished = _true(pc.is_in(known.column("doc_id"), value_set=deleted))
        buried = wished & ~dead & _true(pc.not_equal(known.column("status"), DELETED))
    dropped = [*_repeated(read, first), *_unchanged(stays.filter(pa.array(unchanged)))]
    return Decision(
        pa.Table.from_pylist(dropped, schema=DROPPED_SCHEMA).sort_by([("group", "ascending"), ("row", "ascending")]),
        pa.concat_tables([known.filter(pa.array(~dead & ~buried)), as_deleted(known.filter(pa.array(buried)))]),
        known.filter(pa.array(dead | buried)),
    )


def _in_order(groups: Sequence[tuple[int, bool, pa.Table]]) -> pa.Table:
    empty = LEDGER_SCHEMA.empty_table().select(COLUMNS)
    tables = [
        rows.select(COLUMNS)
        .append_column("group", pa.array(np.full(rows.num_rows, number), pa.int32()))
        .append_column("taken_over", pa.array(np.full(rows.num_rows, kept), pa.bool_()))
        for number, kept, rows in [(0, False, empty), *groups]
    ]
    return pa.concat_tables(tables, promote_options="permissive")


def _first(ids: pa.Array) -> npt.NDArray[np.bool_]:
    """The rows that are the first of their id, (rows,)."""
    codes = pc.dictionary_encode(ids).indices.to_numpy()
    first = np.zeros(len(ids), np.bool_)
    first[np.unique(codes, return_index=True)[1]] = True
    return first


def _repeated(read: pa.Table, first: npt.NDArray[np.bool_]) -> list[dict[str, object]]:
    """The documents that an earlier one of the same id displaces."""
    later = read.filter(pa.array(~first))
    if not later.num_rows:
        return []
    concerned = read.filter(pa.array(first)).filter(
        pc.is_in(read.filter(pa.array(first)).column("doc_id"), value_set=later.column("doc_id"))
    )
    staying = {row["doc_id"]: row for row in concerned.to_pylist()}
    dropped: list[dict[str, object]] = []
    for row in later.to_pylist():
        stays = staying[row["doc_id"]]
        same = "duplicate" if stays["version"] == row["version"] else "duplicate-id"
        reason = "replaced" if row["taken_over"] else same
        dropped.append({"group": row["group"], "row": row["row"], "reason": reason, "kept_in": stays["source"]})
    return dropped


def _unchanged(rows: pa.Table) -> list[dict[str, object]]:
    return [
        {"group": row["group"], "row": row["row"], "reason": "unchanged", "kept_in": row["source"]}
        for row in rows.to_pylist()
    ]


def _true(values: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.bool_]:
    """Where it holds, (rows,); null counts as not."""
    return np.asarray(pc.fill_null(values, False).to_numpy(), np.bool_)
