"""Decide: of several documents with one id, which one stays.

Guaranteed: pure over the ids of a partition; the first in the order of groups and rows stays, those read in this run
before those kept from the snapshot before. Not guaranteed: anything about equal content under different ids.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from ray_jobs.ingest.receipts import Dropped


def displaced(groups: Sequence[tuple[int, bool, pa.Table]]) -> list[Dropped]:
    """The documents that an earlier one of the same id displaces.

    `groups` are (group number, kept from before, rows with doc_id, version, row and source), in order of precedence.
    """
    if not groups:
        return []
    table = pa.concat_tables(
        [
            rows.append_column("group", pa.array([number] * rows.num_rows, pa.int64())).append_column(
                "kept", pa.array([kept] * rows.num_rows, pa.bool_())
            )
            for number, kept, rows in groups
        ]
    )
    counted = pc.value_counts(table.column("doc_id"))
    repeated = counted.field("values").filter(pc.greater(counted.field("counts"), 1))
    if not len(repeated):
        return []
    first: dict[str, dict[str, object]] = {}
    dropped = []
    for row in table.filter(pc.is_in(table.column("doc_id"), repeated)).to_pylist():
        stays = first.setdefault(row["doc_id"], row)
        if stays is not row:
            dropped.append(
                Dropped(group=row["group"], row=row["row"], reason=_reason(stays, row), kept_in=str(stays["source"]))
            )
    return dropped


def _reason(stays: dict[str, object], goes: dict[str, object]) -> str:
    if goes["kept"]:
        return "replaced"
    return "duplicate" if stays["version"] == goes["version"] else "duplicate-id"
