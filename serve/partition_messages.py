"""What travels between the retriever and its partitions: plain, frozen data.

Guaranteed: every call names the version that it is about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ray_jobs.index.filters import Filter
from ray_jobs.index.lexical import LexicalStatistics
from ray_jobs.index.merge import Candidates, Ranking
from ray_jobs.index.search import Plan, Queries

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Version:
    """A snapshot of an index."""

    index: str
    number: int


class VersionCall(Protocol):
    """Any call to a partition."""

    @property
    def version(self) -> Version:
        """What it is about."""
        ...


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
    ahead: int  # rows to read of each query, before it is known which are listed


@dataclass(frozen=True)
class RowsCall:
    """Rows to read: shard and row of each, both (n,)."""

    version: Version
    shards: Rows
    rows: Rows


@dataclass(frozen=True)
class StoredRows:
    """Rows as they are stored: shard and row of each, both (n,), and what is in them."""

    shards: Rows
    rows: Rows
    stored: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Found:
    """What one partition proposes for some queries."""

    candidates: Mapping[str, Candidates]  # of each stage; empty where there is a ranking
    ranking: Ranking | None  # final, of a partition that holds the whole snapshot
    ahead: StoredRows  # what is likely to be listed, or all that is


@dataclass(frozen=True)
class VocabularyCall:
    """The terms of a version are wanted, `limit` of them at most."""

    version: Version
    limit: int
