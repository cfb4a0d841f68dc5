"""Search over shards in three steps that any host can run: statistics, candidates, merge.

A `Partition` holds some shards of a snapshot and answers the first two steps; merging is pure. In one process there is
one partition with every shard (`Snapshot`); a job or a server spreads partitions and calls the same functions.

Guaranteed: with the exact type (Flat) and with every IVF type, the same hits in the same order whatever the partitions,
since everything that depends on the whole index (BM25 statistics, rows that pass the filter) is summed first.
Not guaranteed: that for graph types (HNSW), where each shard is a graph of its own and recall is compared instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ray_jobs.index.factory import IndexType
from ray_jobs.index.fusion import Fusing, Fusion, fuse
from ray_jobs.index.hits import Hit
from ray_jobs.index.lexical import LexicalStatistics
from ray_jobs.index.manifest import Manifest
from ray_jobs.index.merge import By, Candidates, Keys, Ranking, best, concatenate, rank
from ray_jobs.index.nearest import DensePart, nearest
from ray_jobs.index.quantiser import Probes, Quantiser
from ray_jobs.index.shard import Shard
from ray_jobs.index.vocabulary import Vocabulary, together
from ray_jobs.storage import Storage

if TYPE_CHECKING:
    from ray_jobs.index.filters import Filter

_FILTERS_KEPT = 8  # a byte a row each

Mode = Literal["dense", "lexical", "hybrid"]
STAGES: dict[str, tuple[str, ...]] = {
    "dense": ("dense",),
    "lexical": ("lexical",),
    "hybrid": ("dense", "lexical"),
}


class Weights(BaseModel):
    """What each stage counts for in hybrid search."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dense: float = Field(0.4, ge=0)
    lexical: float = Field(0.6, ge=0)

    @model_validator(mode="after")
    def _one_counts(self) -> Self:
        if self.dense + self.lexical == 0:
            raise ValueError("weights dense=0 and lexical=0: at least one must be above 0")
        return self


class SearchConfig(BaseModel):
    """How to search; the same for one query, a job and a server."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Mode = Field("hybrid", description="by meaning (dense), by words (lexical) or both")
    k: int = Field(10, ge=1, le=10_000, description="results a query")
    by: By = Field("document", description="what k counts; a document scores as its best chunk")
    where: str | None = Field(None, description="filter on metadata, such as \"lang = 'en' and year >= 2020\"")
    depth: int = Field(100, ge=1, le=10_000, description="results of each stage that hybrid search fuses")
    # Of ten fusions this one, with these weights, was best on training questions: tests/bench/tune_fusion.py.
    fusion: Fusion = Field(
        "bounded", description="fuse by absolute scores, by scaled scores (minmax) or by ranks (rrf)"
    )
    weights: Weights = Weights()
    nprobe: int | None = Field(None, ge=1, description="inverted lists scanned a query; None: the snapshot's own")
    exact_below: int = Field(
        20_000, ge=0, description="a filter that lets at most so many rows through is answered by an exact scan"
    )


@dataclass(frozen=True)
class Queries:
    """A batch of queries, embedded and analysed once."""

    vectors: npt.NDArray[np.float32] | None  # (b, d); None when the mode does not need them
    terms: list[list[str]]  # (b,); empty lists when the mode does not need them
    probes: Probes | None = None  # of the vectors, where they were chosen once for all partitions

    def __len__(self) -> int:
        return len(self.terms)


@dataclass(frozen=True)
class Statistics:
    """What must be summed over all partitions before any of them searches."""

    lexical: LexicalStatistics = field(default_factory=LexicalStatistics)
    allowed: int = 0  # rows that pass the filter

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(self.lexical + other.lexical, self.allowed + other.allowed)


@dataclass(frozen=True)
class Plan:
    """Everything a partition needs to know to search; the same on every host."""

    config: SearchConfig
    where: Filter | None
    depth: int  # competitors of a stage's ranking
    pool: int  # competitors by the index's own score among which a dense ranking is made
    nprobe: int
    exact: bool

    @property
    def stages(self) -> tuple[str, ...]:
        """The rankings to make."""
        return STAGES[self.config.mode]


def make_plan(manifest: Manifest, config: SearchConfig, where: Filter | None, allowed: int) -> Plan:
    """Fix what is searched and how, from the number of rows that pass the filter in the whole snapshot."""
    depth = config.k if config.mode != "hybrid" else max(config.k, config.depth)
    index_type = IndexType(manifest.template.factory, "")
    pool = depth if index_type.is_exact else manifest.template.oversampling * depth + 16
    nprobe = config.nprobe or manifest.template.nprobe
    few_in_lists = bool(index_type.lists) and allowed * nprobe < 10 * pool * index_type.lists
    # Not for dead rows: the answers of a compacted index would be others.
    exact = where is not None and (allowed <= config.exact_below or few_in_lists)
    return Plan(config, where, depth, pool, nprobe, exact)


class Partition:
    """Some shards of one snapshot; safe to share between threads."""

    def __init__(self, manifest: Manifest, shards: Sequence[Shard]) -> None:
        self.manifest = manifest
        self.shards = {shard.number: shard for shard in shards}
        # A search evaluates its filter twice, and many searches have the same one: a tenant's, a language.
        self._masks = lru_cache(_FILTERS_KEPT)(self._evaluate)

    @classmethod
    def open(
        cls,
        storage: Storage,
        manifest: Manifest,
        numbers: Sequence[int] | None = None,
        known: Mapping[str, Shard] | None = None,
    ) -> Partition:
        """Open shards of a snapshot by their numbers, by default all; `known` are open ones by id, used again.

        Raises CorruptError for files that are not what the manifest says, NotFoundError for missing ones.
        """
        quantiser = Quantiser(storage, manifest.template.file)
        shards = []
        for number in range(len(manifest.shards)) if numbers is None else numbers:
            record = manifest.shards[number]
            shard = (known or {}).get(record.id)
            if shard is not None and shard.record.files == record.files:
                shards.append(shard.under(storage, record, number))
            else:
                shards.append(Shard.open(storage, record, number, manifest.embedder.dimension, quantiser))
        return cls(manifest, shards)

    def statistics(self, terms: set[str], where: Filter | None) -> Statistics:
        """The part of this partition in what must be known of the whole snapshot."""
        total = Statistics()
        for shard, allowed in zip(self.shards.values(), self._allowed(where), strict=True):
            passing = shard.live_count if where is None or allowed is None else int(allowed.sum())
            total += Statistics(shard.statistics(terms), passing)
        return total

    def vocabulary(self, limit: int) -> Vocabulary:
        """The commonest terms of these shards, at most `limit` of each shard."""
        return together([shard.vocabulary(limit) for shard in self.shards.values()], limit)

    def candidates(self, queries: Queries, plan: Plan, statistics: Statistics) -> dict[str, Candidates]:
        """The candidates of these shards for every stage of the plan."""
        allowed = self._allowed(plan.where)
        by_document = plan.config.by == "document"
        found = {}
        if "dense" in plan.stages and queries.vectors is not None:
            parts = [
                DensePart(shard.number, shard.dense, shard.rows.documents, mask)
                for shard, mask in zip(self.shards.values(), allowed, strict=True)
            ]
            found["dense"] = nearest(
                parts, queries.vectors, plan.pool, by_document, plan.exact, plan.nprobe, queries.probes
            )
        if "lexical" in plan.stages:
            found["lexical"] = concatenate(
                [
                    shard.find_lexical(queries.terms, statistics.lexical, plan.depth, by_document, mask)
                    for shard, mask in zip(self.shards.values(), allowed, strict=True)
                ]
            )
        return found

    def _allowed(self, where: Filter | None) -> Sequence[npt.NDArray[np.bool_] | None]:
        """The live rows of each shard that `where` lets through, (rows,); None for all."""
        return [shard.live for shard in self.shards.values()] if where is None else self._masks(str(where))

    def _evaluate(self, where: str) -> list[npt.NDArray[np.bool_]]:
        # Keyed by text: as dataclasses, `x = 1` and `x = true` are equal.
        from ray_jobs.index.filters import parse

        parsed = parse(where)
        return [shard.allowed(parsed, self.manifest.metadata) for shard in self.shards.values()]


def lexical_bounds(queries: Sequence[Sequence[str]], statistics: LexicalStatistics) -> npt.NDArray[np.float64]:
    """What BM25 can reach at most for each analysed query, (q,): the sum of the idf of its terms."""
    return np.array([sum(statistics.idf(term) for term in sorted(terms)) for terms in queries], np.float64)


def merge(
    parts: Sequence[Mapping[str, Candidates]],
    plan: Plan,
    manifest: Manifest,
    bounds: npt.NDArray[np.float64],
    keys: Keys,
) -> Ranking:
    """One ranking from the candidates of every partition.

    `bounds` (q,) are those of `lexical_bounds`; `keys` tells equal scores apart.
    """
    by = plan.config.by
    pools = {"dense": plan.pool, "lexical": plan.depth}
    # Fusing by scores asks what is listed, not in which order equal scores are.
    listing = best if len(plan.stages) > 1 and plan.config.fusion != "rrf" else rank
    rankings = {
        stage: listing(concatenate([part[stage] for part in parts]), plan.depth, by, pools[stage], keys)
        for stage in plan.stages
    }
    if len(rankings) == 1:
        ((stage, ranking),) = rankings.items()
        return Ranking(ranking, {stage: ranking.score})
    fusing = Fusing(plan.config.fusion, plan.config.weights.model_dump(), bounds, manifest.embedder.normalized)
    return fuse(rankings, fusing, by, plan.config.k, keys)


def to_hits(ranking: Ranking, queries: int, rows: Sequence[Mapping[str, Any]]) -> list[list[Hit]]:
    """The hits of each of `queries` queries; `rows` are the stored ones of the ranking's candidates, in its order."""
    listed = ranking.candidates
    results: list[list[Hit]] = [[] for _ in range(queries)]
    for position, row in enumerate(rows):
        hits = results[int(listed.query[position])]
        stages = {
            name: float(values[position]) for name, values in ranking.scores.items() if not np.isnan(values[position])
        }
        hits.append(Hit.of(row, float(listed.score[position]), len(hits) + 1, stages))
    return results
