"""Queries of one batch that are searched alike: same version, same configuration; and how far their search has come.

Guaranteed: a partition that is lost takes everything that came from it along, so that a reply never mixes a partition
in for one step and leaves it out in another. No I/O here: the retriever asks, a group keeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ray_jobs.errors import TandemError, UsageError
from ray_jobs.index.filters import Filter, check, parse
from ray_jobs.index.hits import Hit
from ray_jobs.index.merge import Candidates, Keys, Ranking
from ray_jobs.index.search import Plan, Queries, SearchConfig, lexical_bounds, make_plan, merge, to_hits
from serve.messages import SearchCall, SearchReply
from serve.partition_messages import CandidatesCall, Found, PartStatistics, RowsCall, StatisticsCall, StoredRows
from serve.versions import ServedVersion, summed


class LostError(Exception):
    """Partitions that answered before do not answer any more."""

    def __init__(self, parts: Iterable[int]) -> None:
        super().__init__()
        self.parts = frozenset(parts)


class Group:
    """Calls of one batch with the same version and configuration."""

    def __init__(self, served: ServedVersion, config: SearchConfig, where: Filter | None) -> None:
        self.served = served
        self.config = config
        self.texts: list[str] = []
        self._where = where
        self._positions: list[int] = []
        self._terms: list[list[str]] = []  # of each query, whatever the mode
        self._for_reader = False
        self._missing: set[int] = set()
        self._partial = summed([], 0 if where is None else 1)
        self._queries = Queries(None, [])
        self._plan: Plan | None = None
        self._found: dict[int, Found] = {}
        self._ranking: Ranking | None = None
        self._rows: dict[tuple[int, int], Mapping[str, Any]] = {}  # by shard and row

    def add(self, position: int, call: SearchCall) -> None:
        """Take in the call at `position` of the batch."""
        self._positions.append(position)
        self.texts.append(call.text)
        self._terms.append(self.served.analyzer.terms(call.text))
        self._for_reader |= call.for_reader

    @property
    def parts(self) -> list[int]:
        """The partitions that have not been lost."""
        return [part for part in range(len(self.served.parts)) if part not in self._missing]

    def lose(self, parts: Iterable[int]) -> None:
        """Leave these partitions out from here on."""
        self._missing.update(parts)
        for part in self._missing:
            self._found.pop(part, None)

    def embedded(self, vectors: npt.NDArray[np.float32] | None) -> None:
        """Take the vectors (n, d) of the texts; None where the mode needs none."""
        terms = [[] for _ in self.texts] if self.config.mode == "dense" else self._terms
        probes = None if vectors is None else self.served.probes(vectors, self.config.nprobe)
        self._queries = Queries(vectors, terms, probes)

    def unknown(self) -> StatisticsCall | None:
        """The statistics that must be asked for."""
        wanted = self._terms if self._for_reader else self._queries.terms
        filters = [] if self._where is None else [self._where]
        return self.served.unknown({term for terms in wanted for term in terms}, filters)

    def learn(self, call: StatisticsCall, replies: Mapping[int, PartStatistics]) -> None:
        """Take the statistics of each partition; they are remembered when all of them answered."""
        self.lose(set(self.parts) - replies.keys())
        self._partial = summed(list(replies.values()), len(call.filters))
        if not self._missing:
            self.served.learn(call, list(replies.values()))

    def candidates_call(self) -> CandidatesCall:
        """What every partition is asked for."""
        allowed = 0
        if self._where is not None:
            allowed = self.served.allowed(self._where, sum(self._partial.allowed))
        self._plan = make_plan(self.served.manifest, self.config, self._where, allowed)
        terms = {term for terms in self._terms for term in terms}
        self._statistics = self.served.lexical(terms, self._partial.lexical)
        ahead = _likely(self.config.k, len(self.served.parts))
        return CandidatesCall(self.served.version, self._queries, self._plan, self._statistics, ahead)

    def find(self, replies: Mapping[int, Found]) -> None:
        """Take what each partition proposes."""
        self._found = dict(replies)
        self.lose(set(self.parts) - replies.keys())
        for found in replies.values():
            self._ranking = found.ranking
            self._keep(found.ahead)

    @property
    def is_ranked(self) -> bool:
        """Whether the one partition that there is has ranked what it found."""
        return self._ranking is not None and not self._missing

    def merge(self, keys: Keys) -> None:
        """Rank the candidates; `keys` may raise LostError."""
        assert self._plan is not None
        bounds = lexical_bounds(self._queries.terms, self._statistics)
        candidates = [found.candidates for found in self._found.values()]
        self._ranking = merge(candidates, self._plan, self.served.manifest, bounds, keys)

    def rows_calls(self) -> dict[int, RowsCall]:
        """The rows still to be read from each partition."""
        listed = self._listed()
        places = zip(listed.shard.tolist(), listed.row.tolist(), strict=True)
        absent = np.flatnonzero([place not in self._rows for place in places])
        shards, rows = listed.shard[absent], listed.row[absent]
        return {part: self.served.rows_call(shards[own], rows[own]) for part, own in self.served.places(shards).items()}

    def read(self, calls: Mapping[int, RowsCall], replies: Mapping[int, Sequence[Mapping[str, Any]]]) -> None:
        """Take what each partition answered to `calls`."""
        for part, call in calls.items():
            self._keep(StoredRows(call.shards, call.rows, replies[part]))

    def _keep(self, read: StoredRows) -> None:
        self._rows.update(zip(zip(read.shards.tolist(), read.rows.tolist(), strict=True), read.stored, strict=True))

    def replies(self, timings: Mapping[str, float]) -> Iterator[tuple[int, SearchReply]]:
        """The reply to each call, with its position in the batch."""
        assert self._ranking is not None
        coverage = self.served.coverage(self._missing)
        listed = self._listed()
        rows = [self._rows[place] for place in zip(listed.shard.tolist(), listed.row.tolist(), strict=True)]
        hits: list[list[Hit]] = to_hits(self._ranking, len(self.texts), rows)
        for position, terms, own in zip(self._positions, self._terms, hits, strict=True):
            yield (
                position,
                SearchReply(
                    index=self.served.version.index,
                    snapshot=self.served.version.number,
                    hits=tuple(own),
                    coverage=coverage,
                    statistics=self._statistics.only(terms),
                    language=self.served.manifest.lexical.language,
                    timings=timings,
                ),
            )

    def _listed(self) -> Candidates:
        assert self._ranking is not None
        return self._ranking.candidates


def grouped(
    calls: Sequence[SearchCall], find: Callable[[str], ServedVersion]
) -> tuple[list[Group], dict[int, TandemError]]:
    """Groups of calls that are alike, and the errors of those that cannot be searched, by position."""
    groups: dict[tuple[str, SearchConfig], Group] = {}
    refused: dict[int, TandemError] = {}
    for position, call in enumerate(calls):
        try:
            if not call.text.strip():
                raise UsageError("query is empty; expected some words")
            key = (call.index, call.config)
            if key not in groups:
                served = find(call.index)
                where = None if call.config.where is None else parse(call.config.where)
                if where is not None:
                    check(where, served.manifest.metadata)
                groups[key] = Group(served, call.config, where)
            groups[key].add(position, call)
        except TandemError as error:
            refused[position] = error
    return list(groups.values()), refused


def _likely(k: int, parts: int) -> int:
    """How many of the `k` hits of a query one of `parts` partitions is unlikely to exceed.

    Hits fall into partitions as documents do, at random: the mean and three standard deviations of that binomial.
    """
    mean = k / parts
    return min(k, math.ceil(mean + 3 * math.sqrt(mean)))
