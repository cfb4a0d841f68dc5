"""One hash partition of a run: read what is known of its documents, decide, and store what was decided.

Guaranteed: what is stored is in flight only; the receipt says how much it is, and of what.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.ingest.decide import COLUMNS, DROPPED_SCHEMA, decide
from ray_jobs.ingest.in_flight import store_table
from ray_jobs.ingest.ledger import fates, read_partition
from ray_jobs.ingest.receipts import Cut, DecidedPartition
from ray_jobs.storage import Storage


def decide_partition(
    storage: Storage,
    folder: str,
    partition: int,
    groups: Sequence[tuple[int, bool, str]],
    known: pa.Table,
    gone: pa.Array | None,
    deleted_keys: Sequence[str] = (),
) -> DecidedPartition:
    """Decide for one partition; `groups` are (number, taken over, key of the ids), in order of precedence.

    `known` is what stays of that partition of the ledger of the snapshot before unless something says otherwise; `gone`
    are the sources whose documents go.
    """
    tables = read_partition(storage, [key for _, _, key in groups], partition, COLUMNS)
    deleted = _column(storage, deleted_keys, "doc_id") if deleted_keys else None
    named = [(number, taken_over, table) for (number, taken_over, _), table in zip(groups, tables, strict=True)]
    decision = decide(named, known, gone, deleted)
    dropped, kept, dead = (
        store_table(storage, f"{folder}/decided", table) for table in (decision.dropped, decision.kept, decision.dead)
    )
    shards = decision.dead.filter(pa.compute.is_valid(decision.dead.column("shard")))
    return DecidedPartition(
        partition=partition,
        dropped_key=dropped.key,
        kept_key=kept.key,
        kept_sha256=kept.sha256,
        dead_key=dead.key,
        groups=cuts(decision.dropped, "group", ("row", "reason", "kept_in")),
        shards=cuts(shards, "shard", ("first_row", "chunks")),
        reasons=dict(Counter(decision.dropped.column("reason").to_pylist())),
        kept=fates(decision.kept),
        dead=decision.dead.num_rows,
    )


def dropped_of(storage: Storage, keys: Sequence[str], group: int) -> pa.Table:
    """The documents of a group that are not embedded, DROPPED_SCHEMA."""
    tables = [pq.read_table(storage.local(key), filters=[("group", "=", group)]) for key in keys]
    return pa.concat_tables([DROPPED_SCHEMA.empty_table(), *(table.cast(DROPPED_SCHEMA) for table in tables)])


def dropped_rows(storage: Storage, key: str, reason: str, most: int) -> list[dict[str, Any]]:
    """Some documents that are not embedded for this reason, as DROPPED_SCHEMA has them."""
    table = pq.read_table(storage.local(key), filters=[("reason", "=", reason)])
    return list(table.slice(0, most).to_pylist())


def cuts(table: pa.Table, by: str, columns: Sequence[str]) -> dict[str, Cut]:
    """For each value of a column how many rows have it, and a hash of what they hold."""
    found: dict[str, list[dict[str, object]]] = {}
    for row in table.select([by, *columns]).to_pylist():
        found.setdefault(row.pop(by), []).append(row)
    return {
        name: Cut(
            documents=len(rows),
            digest=hashlib.sha256(repr(rows).encode()).hexdigest(),
            letters=sum(row.get("reason") == "duplicate-id" for row in rows),
        )
        for name, rows in found.items()
    }


def _column(storage: Storage, keys: Sequence[str], name: str) -> pa.Array:
    tables = [pq.read_table(storage.local(key), columns=[name]) for key in keys]
    return pa.concat_tables(tables).column(name).combine_chunks()
