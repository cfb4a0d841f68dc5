"""The steps of a search job that run on workers; plain classes that know no Ray.

    embed       a block of queries            -> vectors and terms
    statistics  a partition                   -> what the whole index must know
    candidates  a partition x a block         -> candidates
    merge       a block                       -> hits

Guaranteed: the steps are those of `Snapshot.search`, with the same functions, so the hits are the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.index import layout
from ray_jobs.index.analysis import Analyzer
from ray_jobs.index.filters import parse
from ray_jobs.index.hits import Hit
from ray_jobs.index.manifest import Manifest, read
from ray_jobs.index.merge import Candidates
from ray_jobs.index.quantiser import Probes, for_several
from ray_jobs.index.rows import RowReader, Rows
from ray_jobs.index.search import (
    Partition,
    Queries,
    SearchConfig,
    Statistics,
    lexical_bounds,
    make_plan,
    merge,
    to_hits,
)
from ray_jobs.index.snapshot import QueryEmbedder, prepare
from ray_jobs.search.queries import Query
from ray_jobs.storage import Storage, new_id

if TYPE_CHECKING:
    from ray_jobs.index.filters import Filter

N = TypeVar("N", bound=np.generic)
HIT_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field(
            "hits",
            pa.list_(
                pa.struct(
                    [
                        pa.field("doc_id", pa.string()),
                        pa.field("chunk_id", pa.string()),
                        pa.field("score", pa.float64()),
                        pa.field("rank", pa.int32()),
                        pa.field("text", pa.string()),
                        pa.field("source", pa.string()),
                        pa.field("start", pa.int32()),
                        pa.field("end", pa.int32()),
                    ]
                )
            ),
        ),
    ]
)


class SearchStages:
    """What every worker of one search job shares."""

    def __init__(self, storage: Storage, index: str, number: int, run: str, config: SearchConfig) -> None:
        self.storage = storage
        self.manifest: Manifest = read(storage, index, number)
        self.folder = f"{layout.run_folder(run)}/search"
        self.config = config
        self.where: Filter | None = None if config.where is None else parse(config.where)
        self._quantiser = for_several(storage, self.manifest.template.file)
        self._partitions: dict[tuple[int, ...], Partition] = {}

    def embed(self, texts: Sequence[str], embedder: QueryEmbedder | None) -> tuple[str, set[str]]:
        """Embed and analyse a block; returns the key of what was stored, and its distinct terms."""
        analyzer = Analyzer(language=self.manifest.lexical.language)
        queries = prepare(self.manifest, analyzer, texts, self.config, embedder)
        if self._quantiser is not None and queries.vectors is not None:
            nprobe = self.config.nprobe or self.manifest.template.nprobe
            queries = replace(queries, probes=self._quantiser.probe(queries.vectors, nprobe))
        return self._store(_queries_table(queries)), {term for terms in queries.terms for term in terms}

    def statistics(self, shards: tuple[int, ...], terms: set[str]) -> Statistics:
        """The part of one partition in the statistics of the whole index."""
        return self._partition(shards).statistics(terms, self.where)

    def candidates(self, shards: tuple[int, ...], queries_key: str, statistics: Statistics) -> str:
        """Candidates of one partition for one block; returns the key of what was stored."""
        queries = self._queries(queries_key)
        plan = make_plan(self.manifest, self.config, self.where, statistics.allowed)
        found = self._partition(shards).candidates(queries, plan, statistics)
        return self._store(pa.concat_tables([_to_table(stage, part) for stage, part in found.items()]))

    def merge(
        self, keys: Sequence[str], queries: Sequence[Query], statistics: Statistics, suffix: str
    ) -> tuple[str, int]:
        """Hits of one block from the candidates of every partition: the key of what was stored, and how many."""
        plan = make_plan(self.manifest, self.config, self.where, statistics.allowed)
        parts = [_from_table(self._load(key), plan.stages) for key in keys]
        rows = RowReader(self._rows)
        analyzer = Analyzer(language=self.manifest.lexical.language)
        bounds = lexical_bounds([analyzer.terms(query.text) for query in queries], statistics.lexical)
        ranking = merge(parts, plan, self.manifest, bounds, rows.keys)
        hits = to_hits(ranking, len(queries), rows.fetch(ranking.candidates.shard, ranking.candidates.row))
        key = f"{self.folder}/{new_id()}{suffix}"
        with self.storage.scratch() as folder:
            path = folder / f"hits{suffix}"
            write_hits(path, queries, hits)
            self.storage.upload(key, path)
        return key, sum(map(len, hits))

    def _partition(self, shards: tuple[int, ...]) -> Partition:
        """The partition, opened; only the last one is kept, since work comes sorted by partition."""
        if shards not in self._partitions:
            self._partitions = {shards: Partition.open(self.storage, self.manifest, shards)}
        return self._partitions[shards]

    def _rows(self, number: int) -> Rows:
        record = self.manifest.shards[number].files[layout.ROWS]
        return Rows.open(self.storage.local(record.key, record.sha256))

    def _queries(self, key: str) -> Queries:
        table = self._load(key)
        vectors = _stacked(table, "vector", np.float32)
        rotated, scores = _stacked(table, "rotated", np.float32), _stacked(table, "score", np.float32)
        lists = _stacked(table, "list", np.int64)
        probes = None if rotated is None or lists is None or scores is None else Probes(rotated, lists, scores)
        return Queries(vectors, table.column("terms").to_pylist(), probes)

    def _store(self, table: pa.Table) -> str:
        key = f"{self.folder}/{new_id()}.arrow"
        with self.storage.scratch() as folder:
            path = folder / "part.arrow"
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
            self.storage.upload(key, path)
        return key

    def _load(self, key: str) -> pa.Table:
        return pa.ipc.open_file(pa.memory_map(str(self.storage.local(key)))).read_all()


def write_hits(path: Path, queries: Sequence[Query], hits: Sequence[Sequence[Hit]]) -> None:
    """Write {"query_id", "hits"} rows as Parquet or JSON Lines, by suffix."""
    names = [field.name for field in HIT_SCHEMA.field("hits").type.value_type]
    rows = [
        {"query_id": query.id, "hits": [{name: getattr(hit, name) for name in names} for hit in found]}
        for query, found in zip(queries, hits, strict=True)
    ]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows, schema=HIT_SCHEMA), path, compression="zstd")
        return
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _to_table(stage: str, part: Candidates) -> pa.Table:
    columns = {field.name: getattr(part, field.name) for field in fields(Candidates)}
    return pa.table({"stage": pa.array([stage] * len(part), pa.string()), **columns})


def _from_table(table: pa.Table, stages: Sequence[str]) -> Mapping[str, Candidates]:
    found = {}
    for stage in stages:
        part = table.filter(pa.compute.equal(table.column("stage"), stage))
        found[stage] = Candidates(**{field.name: part.column(field.name).to_numpy() for field in fields(Candidates)})
    return found


def _queries_table(queries: Queries) -> pa.Table:
    probes = queries.probes
    columns: dict[str, npt.NDArray[np.generic] | None] = {
        "vector": queries.vectors,
        "rotated": None if probes is None else probes.queries,
        "list": None if probes is None else probes.lists,
        "score": None if probes is None else probes.scores,
    }
    blobs = {
        name: pa.array([None] * len(queries) if rows is None else [row.tobytes() for row in rows], pa.binary())
        for name, rows in columns.items()
    }
    return pa.table({**blobs, "terms": pa.array(queries.terms, pa.list_(pa.string()))})


def _stacked(table: pa.Table, name: str, kind: type[N]) -> npt.NDArray[N] | None:
    """The rows of one column side by side, (b, n); None where the block has none."""
    rows = table.column(name).to_pylist()
    return None if rows[0] is None else np.stack([np.frombuffer(row, kind) for row in rows])
