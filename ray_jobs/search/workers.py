"""The steps of a search job as Ray Data sees them: rows of JSON in, receipts of JSON out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from pydantic import TypeAdapter

from ray_jobs.index.lexical import LexicalStatistics
from ray_jobs.index.search import SearchConfig, Statistics
from ray_jobs.models.embedder import Embedder, EmbedderConfig
from ray_jobs.search.queries import Query
from ray_jobs.search.stages import SearchStages
from ray_jobs.storage import open_storage

Batch = dict[str, Any]
QUERIES: TypeAdapter[list[Query]] = TypeAdapter(list[Query])


@dataclass(frozen=True)
class Task:
    """What every step of one job is given."""

    store: str
    index: str
    snapshot: int
    run: str
    config: SearchConfig

    def stages(self) -> SearchStages:
        """The steps, opened on this worker."""
        return SearchStages(open_storage(self.store), self.index, self.snapshot, self.run, self.config)


class Embed:
    """Rows {block, queries} to {block, key, terms}."""

    def __init__(self, task: Task, embedder: EmbedderConfig | None) -> None:
        self._task = task
        self._config = embedder

    @cached_property
    def _stages(self) -> SearchStages:
        # Not in the constructor: of an error there, Ray brings the driver no more than its text.
        return self._task.stages()

    @cached_property
    def _embedder(self) -> Embedder | None:
        if self._config is None:
            return None
        return Embedder.load(self._config, open_storage(self._task.store))

    def __call__(self, batch: Batch) -> Iterator[Batch]:
        """Embed the blocks of a batch."""
        for block, queries in zip(batch["block"], batch["queries"], strict=True):
            texts = [query.text for query in QUERIES.validate_json(queries)]
            key, terms = self._stages.embed(texts, self._embedder)
            yield {"block": [int(block)], "key": [key], "terms": [json.dumps(sorted(terms))]}


def statistics(batch: Batch, arguments: tuple[Task, set[str]]) -> Iterator[Batch]:
    """Rows {shards} to {statistics}."""
    task, terms = arguments
    stages = task.stages()
    for shards in batch["shards"]:
        found = stages.statistics(tuple(json.loads(shards)), terms)
        yield {"statistics": [json.dumps(asdict(found))]}


def read_statistics(text: str) -> Statistics:
    """What `statistics` wrote."""
    found = json.loads(text)
    return Statistics(LexicalStatistics(**found["lexical"]), found["allowed"])


class Search:
    """Rows {shards, block, key} to {block, key}; a partition stays open while the work of its blocks lasts."""

    def __init__(self, task: Task, known: Statistics) -> None:
        self._task = task
        self._known = known

    @cached_property
    def _stages(self) -> SearchStages:
        return self._task.stages()

    def __call__(self, batch: Batch) -> Iterator[Batch]:
        """Search one partition for each block of a batch."""
        for shards, block, key in zip(batch["shards"], batch["block"], batch["key"], strict=True):
            found = self._stages.candidates(tuple(json.loads(shards)), str(key), self._known)
            yield {"block": [int(block)], "key": [found]}


def merge(batch: Batch, arguments: tuple[Task, Statistics, str]) -> Iterator[Batch]:
    """Rows {block, keys, queries} to {block, key, hits}."""
    task, known, suffix = arguments
    stages = task.stages()
    for block, keys, queries in zip(batch["block"], batch["keys"], batch["queries"], strict=True):
        key, hits = stages.merge(json.loads(keys), QUERIES.validate_json(queries), known, suffix)
        yield {"block": [int(block)], "key": [key], "hits": [hits]}
