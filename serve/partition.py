"""One partition of every index that is served: its shards, in each version that is asked for, mapped and searched.

Guaranteed: an answer comes from the version that was asked for, or says that this host does not hold it (`Missing`),
and then the version is being opened; shards that two versions share are opened once; which shards a host holds is a
function of the manifest, its position and the number of partitions. All methods block and may be called from many
threads. Not guaranteed: that a version stays open; one that is neither among the newest two nor used for a while is
let go.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ray_jobs.errors import TandemError
from ray_jobs.index.filters import Filter
from ray_jobs.index.lexical import LexicalStatistics
from ray_jobs.index.manifest import live_after, read, read_live
from ray_jobs.index.merge import Candidates
from ray_jobs.index.partitions import partitions_of
from ray_jobs.index.rows import RowReader
from ray_jobs.index.search import Partition, Plan, Queries, Statistics
from ray_jobs.index.shard import Shard
from ray_jobs.storage import Storage

_NEWEST_KEPT = 2
_log = logging.getLogger("tandem.serve.partition")

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Version:
    """A snapshot of an index."""

    index: str
    number: int


@dataclass(frozen=True)
class Missing:
    """The host does not hold the version yet; another one may, and this one soon will."""

    version: Version


@dataclass(frozen=True)
class StatisticsCall:
    """Terms and filters whose statistics are wanted."""

    version: Version
    terms: frozenset[str]
    filters: tuple[Filter, ...]


@dataclass(frozen=True)
class PartStatistics:
    """What this partition knows of them."""

    lexical: LexicalStatistics
    allowed: tuple[int, ...]  # rows that pass each filter


@dataclass(frozen=True)
class CandidatesCall:
    """Queries of one version that are searched alike."""

    version: Version
    queries: Queries
    plan: Plan
    statistics: LexicalStatistics  # of the whole snapshot


@dataclass(frozen=True)
class RowsCall:
    """Rows to read: shard and row of each, both (n,)."""

    version: Version
    shards: Rows
    rows: Rows


@dataclass
class _Open:
    """An open version, or the part of it that is this host's."""

    partition: Partition
    rows: RowReader
    used: float = field(default_factory=time.monotonic)


class PartitionHost:
    """Partition `position` of `count`, of each of `indexes`."""

    def __init__(self, storage: Storage, indexes: Sequence[str], position: int, count: int, drain_s: float) -> None:
        self._storage = storage
        self._indexes = tuple(indexes)
        self._position = position
        self._count = count
        self._drain_s = drain_s
        self._open: dict[Version, _Open] = {}
        self._live: dict[str, int] = {}
        self._opening: set[Version] = set()
        self._lock = threading.Lock()
        self._one_at_a_time = threading.Lock()  # opening shares shards with what is open already

    def follow(self) -> None:
        """Open what is live now, and let go of what is no longer used.

        Raises the error of the store or of a broken snapshot; what was open before stays so.
        """
        for index in self._indexes:
            known = self._live.get(index)
            number = read_live(self._storage, index).number if known is None else known
            number = live_after(self._storage, index, number)
            self._ensure(Version(index, number))
            self._live[index] = number
        self._let_go()

    def held(self, used: Sequence[Version]) -> list[Version]:
        """The versions that are open; `used` are those that somebody still searches."""
        now = time.monotonic()
        with self._lock:
            for version in used:
                if version in self._open:
                    self._open[version].used = now
            return list(self._open)

    def statistics(self, calls: Sequence[StatisticsCall]) -> list[PartStatistics | Missing]:
        """What must be summed over all partitions before any of them searches, for each call."""
        return [self._statistics(call) for call in calls]

    def candidates(self, calls: Sequence[CandidatesCall]) -> list[dict[str, Candidates] | Missing]:
        """The candidates of this partition for each stage, for each call."""
        found: list[dict[str, Candidates] | Missing] = []
        for call in calls:
            opened = self._get(call.version)
            if opened is None:
                found.append(Missing(call.version))
                continue
            found.append(opened.partition.candidates(call.queries, call.plan, Statistics(call.statistics)))
        return found

    def rows(self, calls: Sequence[RowsCall]) -> list[list[Mapping[str, Any]] | Missing]:
        """The stored rows, for each call."""
        found: list[list[Mapping[str, Any]] | Missing] = []
        for call in calls:
            opened = self._get(call.version)
            found.append(Missing(call.version) if opened is None else opened.rows.fetch(call.shards, call.rows))
        return found

    def keys(self, calls: Sequence[RowsCall]) -> list[tuple[list[str], list[int]] | Missing]:
        """doc_id and ordinal of each row, by which equal scores are ordered, for each call."""
        found: list[tuple[list[str], list[int]] | Missing] = []
        for call in calls:
            opened = self._get(call.version)
            found.append(Missing(call.version) if opened is None else opened.rows.keys(call.shards, call.rows))
        return found

    def _statistics(self, call: StatisticsCall) -> PartStatistics | Missing:
        opened = self._get(call.version)
        if opened is None:
            return Missing(call.version)
        lexical = opened.partition.statistics(set(call.terms), None).lexical
        allowed = tuple(opened.partition.statistics(set(), where).allowed for where in call.filters)
        return PartStatistics(lexical, allowed)

    def _get(self, version: Version) -> _Open | None:
        with self._lock:
            opened = self._open.get(version)
            if opened is not None:
                opened.used = time.monotonic()
                return opened
            if version in self._opening or version.index not in self._indexes:
                return None
            self._opening.add(version)
        threading.Thread(target=self._open_aside, args=(version,), daemon=True, name="open-version").start()
        return None

    def _open_aside(self, version: Version) -> None:
        try:
            self._ensure(version)
        except TandemError as error:
            _log.warning("cannot open %s snapshot %d: %s", version.index, version.number, error)
        finally:
            with self._lock:
                self._opening.discard(version)

    def _ensure(self, version: Version) -> None:
        with self._one_at_a_time:
            with self._lock:
                if version in self._open:
                    return
            opened = self._read(version)
            with self._lock:
                self._open[version] = opened

    def _read(self, version: Version) -> _Open:
        manifest = read(self._storage, version.index, version.number)
        parts = partitions_of(manifest, self._count)
        numbers = parts[self._position] if self._position < len(parts) else ()
        known = self._known_shards(version.index)
        shards = []
        for number in numbers:
            record = manifest.shards[number]
            shard = known.get(record.id)
            if shard is not None and shard.record == record:
                shards.append(Shard(number, record, shard.dense, shard.rows, shard.postings))
            else:
                shards.append(Shard.open(self._storage, record, number, manifest.embedder.dimension))
        partition = Partition(manifest, shards)
        return _Open(partition, RowReader(lambda number: partition.shards[number].rows))

    def _known_shards(self, index: str) -> dict[str, Shard]:
        with self._lock:
            opened = [item.partition for version, item in self._open.items() if version.index == index]
        return {shard.record.id: shard for partition in opened for shard in partition.shards.values()}

    def _let_go(self) -> None:
        oldest_use = time.monotonic() - self._drain_s
        with self._lock:
            for index in self._indexes:
                numbers = sorted(version.number for version in self._open if version.index == index)
                for number in numbers[:-_NEWEST_KEPT]:
                    if self._open[Version(index, number)].used < oldest_use:
                        del self._open[Version(index, number)]
