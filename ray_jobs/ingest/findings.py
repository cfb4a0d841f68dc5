"""What a run has found, for its report, as far as it has come.

Guaranteed: bounded, whatever the corpus holds: sums, and some examples of each kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

import pyarrow.compute as pc
import pyarrow.parquet as pq

from ray_jobs.index.manifest import Counts, FileRecord, Manifest, RecallReport
from ray_jobs.ingest.failures import Failures
from ray_jobs.ingest.partition import dropped_rows
from ray_jobs.ingest.receipts import DecidedPartition, StagedGroup
from ray_jobs.storage import Storage

_EXAMPLES = 5
_PARTS = 8  # of the ledger that are searched for examples


@dataclass
class Findings:
    """What is known of a run's documents, and of its index."""

    counts: Counts | None = None
    failures: Failures = field(default_factory=Failures)
    recalls: list[RecallReport] = field(default_factory=list)  # as they were measured
    candidate: Manifest | None = None  # what it publishes if it verifies
    duplicates: list[str] = field(default_factory=list)  # some of one id, a line each
    set_aside: tuple[tuple[str, str, str], ...] = ()  # some that are filtered or like others: fate, id, why
    empty: list[str] = field(default_factory=list)  # ids of some

    @property
    def recall(self) -> RecallReport | None:
        """What the index is published with, or the highest recall that was measured; None for an exact one."""
        if self.candidate is not None and self.candidate.recall is not None:
            return self.candidate.recall
        return max(self.recalls, key=lambda report: report.recall, default=None)


def some_duplicates(storage: Storage, staged: Sequence[StagedGroup], decided: Sequence[DecidedPartition]) -> list[str]:
    """Some documents that are left out because another one of the same id holds the same."""
    groups = {group.group: group for group in staged}
    concerned = (part for part in decided if part.reasons.get("duplicate"))
    found: list[str] = []
    for part in islice(concerned, _EXAMPLES):
        for row in dropped_rows(storage, part.dropped_key, "duplicate", _EXAMPLES - len(found)):
            group = groups[row["group"]]
            ids = pq.read_table(storage.local(group.ids_key), columns=["doc_id", "row", "source"])
            own = ids.filter(pc.equal(ids.column("row"), row["row"])).to_pylist()[0]
            found.append(f"{own['doc_id']} in {own['source']}, kept from {row['kept_in']}")
        if len(found) >= _EXAMPLES:
            break
    return found


def some_empty(storage: Storage, ledger: Sequence[FileRecord]) -> list[str]:
    """Ids of some documents without text, with their sources."""
    found: list[str] = []
    for record in ledger[:_PARTS]:
        path = storage.local(record.key, record.sha256)
        table = pq.read_table(path, columns=["doc_id", "source"], filters=[("status", "=", "empty")])
        rows = table.slice(0, _EXAMPLES - len(found)).to_pylist()
        found += [f"{row['doc_id']} in {row['source']}" for row in rows]
        if len(found) >= _EXAMPLES:
            break
    return found
