"""An open snapshot in one process: every shard mapped, one call to search.

Guaranteed: all shards of one manifest number, for as long as the object lives, whatever is published meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ray_jobs.errors import UsageError
from ray_jobs.index.analysis import Analyzer
from ray_jobs.index.hits import Hit
from ray_jobs.index.manifest import Manifest, read, read_live
from ray_jobs.index.merge import Ranking
from ray_jobs.index.rows import RowReader
from ray_jobs.index.search import (
    Partition,
    Plan,
    Queries,
    SearchConfig,
    Statistics,
    lexical_bounds,
    make_plan,
    merge,
    to_hits,
)
from ray_jobs.models.embedder import EmbedderIdentity, check_compatible
from ray_jobs.storage import Storage


class QueryEmbedder(Protocol):
    """What search needs of an embedder."""

    @property
    def identity(self) -> EmbedderIdentity:
        """Which model this is."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Vectors of queries, (n, d) float32."""
        ...


class Snapshot:
    """One published version of one index, open for reading."""

    def __init__(self, manifest: Manifest, partition: Partition) -> None:
        self.manifest = manifest
        self.partition = partition
        self.rows = RowReader(lambda number: partition.shards[number].rows)
        self.analyzer = Analyzer(language=manifest.lexical.language)

    @classmethod
    def open(cls, storage: Storage, name: str, number: int | None = None) -> Snapshot:
        """Open snapshot `number` of an index, the live one by default.

        Raises NotFoundError for an index or number that does not exist, CorruptError for files that are not what the
        manifest says (size, hash and structure).
        """
        manifest = read_live(storage, name) if number is None else read(storage, name, number)
        return cls(manifest, Partition.open(storage, manifest))

    def search(self, texts: Sequence[str], config: SearchConfig, embedder: QueryEmbedder | None) -> list[list[Hit]]:
        """The hits of each query, best first, at most `config.k` each.

        `embedder` may be None for lexical search only. Raises UsageError for an empty query, for a filter that does
        not fit the metadata, and for an embedder that did not make this index.
        """
        return self.search_prepared(self.prepare(texts, config, embedder), config)

    def search_prepared(self, queries: Queries, config: SearchConfig) -> list[list[Hit]]:
        """The hits of queries that are embedded and analysed already."""
        if len(queries) == 0:
            return []
        from ray_jobs.index.filters import parse

        where = None if config.where is None else parse(config.where)
        terms = {term for query in queries.terms for term in query}
        # A dense search of all rows depends on nothing but the rows.
        known = where is None and config.mode == "dense"
        statistics = Statistics() if known else self.partition.statistics(terms, where)
        plan = make_plan(self.manifest, config, where, statistics.allowed)
        ranking = self.ranking(queries, plan, statistics)
        rows = self.rows.fetch(ranking.candidates.shard, ranking.candidates.row)
        return to_hits(ranking, len(queries), rows)

    def ranking(self, queries: Queries, plan: Plan, statistics: Statistics) -> Ranking:
        """Where the hits of each query are, without their text."""
        found = self.partition.candidates(queries, plan, statistics)
        bounds = lexical_bounds(queries.terms, statistics.lexical)
        return merge([found], plan, self.manifest, bounds, self.rows.keys)

    def prepare(self, texts: Sequence[str], config: SearchConfig, embedder: QueryEmbedder | None) -> Queries:
        """Embed and analyse queries as the mode needs it."""
        return prepare(self.manifest, self.analyzer, texts, config, embedder)


def prepare(
    manifest: Manifest,
    analyzer: Analyzer,
    texts: Sequence[str],
    config: SearchConfig,
    embedder: QueryEmbedder | None,
) -> Queries:
    """Embed and analyse `texts` as `config.mode` needs it; raises UsageError for an empty query."""
    for position, text in enumerate(texts):
        if not text.strip():
            raise UsageError(f"query {position + 1} of {len(texts)} is empty; expected some words")
    vectors = None
    if config.mode != "lexical":
        if embedder is None:
            raise UsageError(f"mode={config.mode} needs an embedder; expected one, or mode=lexical")
        check_compatible(manifest.embedder, embedder.identity)
        vectors = embedder.encode_queries(texts)
    terms = [analyzer.terms(text) if config.mode != "dense" else [] for text in texts]
    return Queries(vectors, terms)
