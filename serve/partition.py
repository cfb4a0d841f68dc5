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
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from ray_jobs.errors import TandemError
from ray_jobs.index.manifest import live_after, read, read_live
from ray_jobs.index.partitions import partitions_of
from ray_jobs.index.search import Partition
from ray_jobs.index.shard import Shard
from ray_jobs.index.vocabulary import Vocabulary
from ray_jobs.storage import Storage
from serve.open_version import OpenVersion
from serve.partition_messages import (
    CandidatesCall,
    Found,
    Missing,
    PartStatistics,
    RowsCall,
    StatisticsCall,
    Version,
    VersionCall,
    VocabularyCall,
)

_NEWEST_KEPT = 2
_log = logging.getLogger("tandem.serve.partition")


C = TypeVar("C", bound=VersionCall)
R = TypeVar("R")


class PartitionHost:
    """Partition `position` of `count`, of each of `indexes`."""

    def __init__(self, storage: Storage, indexes: Sequence[str], position: int, count: int, drain_s: float) -> None:
        self._storage = storage
        self._indexes = tuple(indexes)
        self._position = position
        self._count = count
        self._drain_s = drain_s
        self._open: dict[Version, OpenVersion] = {}
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
        """As OpenVersion.statistics, for each call."""
        return [self._ask(call, OpenVersion.statistics) for call in calls]

    def vocabulary(self, calls: Sequence[VocabularyCall]) -> list[Vocabulary | Missing]:
        """As OpenVersion.vocabulary, for each call."""
        return [self._ask(call, OpenVersion.vocabulary) for call in calls]

    def candidates(self, calls: Sequence[CandidatesCall]) -> list[Found | Missing]:
        """As OpenVersion.candidates, for each call."""
        return [self._ask(call, OpenVersion.candidates) for call in calls]

    def rows(self, calls: Sequence[RowsCall]) -> list[list[Mapping[str, Any]] | Missing]:
        """As OpenVersion.rows, for each call."""
        return [self._ask(call, OpenVersion.rows) for call in calls]

    def keys(self, calls: Sequence[RowsCall]) -> list[tuple[list[str], list[int]] | Missing]:
        """As OpenVersion.keys, for each call."""
        return [self._ask(call, OpenVersion.keys) for call in calls]

    def _ask(self, call: C, method: Callable[[OpenVersion, C], R]) -> R | Missing:
        opened = self._get(call.version)
        return Missing(call.version) if opened is None else method(opened, call)

    def _get(self, version: Version) -> OpenVersion | None:
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

    def _read(self, version: Version) -> OpenVersion:
        manifest = read(self._storage, version.index, version.number)
        parts = partitions_of(manifest, self._count)
        numbers = parts[self._position] if self._position < len(parts) else ()
        return OpenVersion(Partition.open(self._storage, manifest, numbers, self._known_shards(version.index)))

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
