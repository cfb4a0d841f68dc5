"""One version of an index as one partition holds it: answers every call about it.

Guaranteed: what is proposed is what `Partition.candidates` gives. Where the partition holds the whole snapshot, what
is listed is what `Snapshot.search` lists. All methods block and may be called from many threads.
Not guaranteed: that the rows which are read ahead are all that will be listed, or only those.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from ray_jobs.index.merge import Candidates, running_count
from ray_jobs.index.rows import RowReader
from ray_jobs.index.search import Partition, Statistics, lexical_bounds, merge
from ray_jobs.index.vocabulary import Vocabulary
from serve.partition_messages import (
    CandidatesCall,
    Found,
    PartStatistics,
    RowsCall,
    StatisticsCall,
    StoredRows,
    VocabularyCall,
)


class OpenVersion:
    """The shards of a partition, open."""

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.used = time.monotonic()
        self._rows = RowReader(lambda number: partition.shards[number].rows)
        self._is_whole = len(partition.shards) == len(partition.manifest.shards)

    def statistics(self, call: StatisticsCall) -> PartStatistics:
        """What must be summed over all partitions before any of them searches."""
        lexical = self.partition.statistics(set(call.terms), None).lexical
        allowed = tuple(self.partition.statistics(set(), where).allowed for where in call.filters)
        return PartStatistics(lexical, allowed)

    def vocabulary(self, call: VocabularyCall) -> Vocabulary:
        """The commonest terms."""
        return self.partition.vocabulary(call.limit)

    def candidates(self, call: CandidatesCall) -> Found:
        """What is proposed, with the rows that are likely to be listed."""
        found = self.partition.candidates(call.queries, call.plan, Statistics(call.statistics))
        bounds = lexical_bounds(call.queries.terms, call.statistics)
        ranking = merge([found], call.plan, self.partition.manifest, bounds, self._rows.keys)
        if self._is_whole:
            return Found({}, ranking, self._read(ranking.candidates))
        listed = ranking.candidates
        position = running_count(listed.query, np.ones(len(listed), np.bool_))
        return Found(found, None, self._read(listed[position <= call.ahead]))

    def rows(self, call: RowsCall) -> list[Mapping[str, Any]]:
        """The stored rows."""
        return self._rows.fetch(call.shards, call.rows)

    def keys(self, call: RowsCall) -> tuple[list[str], list[int]]:
        """doc_id and ordinal of each row, by which equal scores are ordered."""
        return self._rows.keys(call.shards, call.rows)

    def _read(self, listed: Candidates) -> StoredRows:
        return StoredRows(listed.shard, listed.row, self._rows.fetch(listed.shard, listed.row))
