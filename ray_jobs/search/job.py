"""The search job: read queries, embed, sum statistics, search partitions, merge, write.

Guaranteed: ids, order and scores (to 1e-4) are those of `Snapshot.search` for the same snapshot and configuration; the
output file appears whole or not at all. Memory of the driver: the queries' texts and the distinct terms of the job.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from ray_jobs.errors import StorageError
from ray_jobs.index import layout
from ray_jobs.index.filters import check, parse
from ray_jobs.index.manifest import Manifest, read, read_live
from ray_jobs.index.partitions import partitions_of
from ray_jobs.index.search import Statistics
from ray_jobs.models.embedder import EmbedderConfig, choose_engine
from ray_jobs.models.for_queries import config_for_queries
from ray_jobs.progress import Progress, SilentProgress
from ray_jobs.runtime import ClusterSize, session, stream, terminated_as_interrupt
from ray_jobs.search import workers
from ray_jobs.search.config import SearchJobConfig
from ray_jobs.search.queries import Query, read_queries
from ray_jobs.search.stages import HIT_SCHEMA
from ray_jobs.storage import Storage, new_id, open_storage

_COPY_BYTES = 1 << 20


class SearchSummary(BaseModel):
    """The outcome of one search job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: str
    snapshot: int
    queries: int
    hits: int
    output: str
    partitions: int
    seconds: float

    def lines(self) -> list[str]:
        """The summary as people read it."""
        return [
            f"{self.queries:,} queries over {self.partitions} partitions of {self.index}, snapshot {self.snapshot}: "
            f"{self.hits:,} hits in {self.output} ({self.seconds:.1f} s)"
        ]


def run(config: SearchJobConfig, progress: Progress | None = None) -> SearchSummary:
    """Answer every query of `config.queries` and write the hits to `config.output`.

    Raises NotFoundError for a missing index or file, UsageError for a wrong row, filter or embedder, StorageError when
    the output cannot be written; then no output appears.
    """
    started = time.monotonic()
    storage = open_storage(config.store)
    number = config.snapshot
    manifest = read_live(storage, config.index) if number is None else read(storage, config.index, number)
    if config.search.where is not None:
        check(parse(config.search.where), manifest.metadata)
    queries = read_queries(config.queries)
    check_writable(config.output)
    # Ray handles signals its own way; what comes after its start counts.
    with session() as cluster, terminated_as_interrupt():
        job = _Job(config, storage, manifest, queries, cluster, progress or SilentProgress())
        try:
            hits = job.run()
        finally:
            job.clean_up()
    return SearchSummary(
        index=config.index,
        snapshot=manifest.number,
        queries=len(queries),
        hits=hits,
        output=str(config.output),
        partitions=len(job.partitions),
        seconds=round(time.monotonic() - started, 3),
    )


class _Job:
    """One search job under way."""

    def __init__(
        self,
        config: SearchJobConfig,
        storage: Storage,
        manifest: Manifest,
        queries: Sequence[Query],
        cluster: ClusterSize,
        progress: Progress,
    ) -> None:
        self.config = config
        self.storage = storage
        self.manifest = manifest
        self.cluster = cluster
        self.progress = progress
        self.run_id = new_id()
        self.task = workers.Task(storage.uri, config.index, manifest.number, self.run_id, config.search)
        size = config.block_queries
        self.blocks = [list(queries[first : first + size]) for first in range(0, len(queries), size)]
        shard_bytes = sum(file.size for shard in manifest.shards for file in shard.files.values())
        self.partitions = partitions_of(manifest, max(cluster.cpus, -(-shard_bytes // config.partition_bytes)))

    def run(self) -> int:
        """All steps; returns the number of hits."""
        keys, terms = self._embed()
        known = self._statistics(terms)
        parts = self._merge(self._search(keys, known), known)
        write_output(self.config.output, [self.storage.local(key) for _, key, _ in parts])
        return sum(hits for _, _, hits in parts)

    def clean_up(self) -> None:
        """Remove what was only in flight."""
        for item in list(self.storage.list(f"{layout.run_folder(self.run_id)}/search")):
            self.storage.delete(item.key)

    def _embed(self) -> tuple[dict[int, str], set[str]]:
        """Where each block's vectors are, and the terms of all queries."""
        embedder = self._embedder()
        cpus = self.cluster.actor_cpus
        keys: dict[int, str] = {}
        terms: set[str] = set()
        with self.progress.stage("embed", len(self.blocks)) as stage:
            for row in stream(
                [{"block": n, "queries": _json(block)} for n, block in enumerate(self.blocks)],
                workers.Embed,
                arguments=(self.task, embedder),
                actors=(1, max(1, self.cluster.room(cpus))),
                num_cpus=cpus,
            ):
                keys[row["block"]] = row["key"]
                terms.update(json.loads(row["terms"]))
                stage.advance(1, queries=len(self.blocks[row["block"]]))
        return keys, terms

    def _embedder(self) -> EmbedderConfig | None:
        if self.config.search.mode == "lexical":
            return None
        chosen = config_for_queries(self.config.embedder, self.manifest.embedder)
        return choose_engine(chosen, self.storage)

    def _statistics(self, terms: set[str]) -> Statistics:
        """What the whole index must know: the sum over the partitions."""
        items: list[dict[str, object]] = [{"shards": json.dumps(shards)} for shards in self.partitions]
        known = Statistics()
        for row in stream(items, workers.statistics, arguments=(self.task, terms), num_cpus=self._cpus()):
            known += workers.read_statistics(row["statistics"])
        return known

    def _search(self, keys: dict[int, str], known: Statistics) -> dict[int, list[str]]:
        """Where the candidates of each block are, one object a partition."""
        items: list[dict[str, object]] = [
            {"shards": json.dumps(shards), "block": block, "key": key}
            for shards in self.partitions
            for block, key in sorted(keys.items())
        ]
        found: dict[int, list[str]] = {block: [] for block in keys}
        most = max(1, self.cluster.room(self._cpus()))
        with self.progress.stage("search", len(items)) as stage:
            for row in stream(
                items, workers.Search, arguments=(self.task, known), actors=(1, most), num_cpus=self._cpus()
            ):
                found[row["block"]].append(row["key"])
                stage.advance(1)
        return found

    def _merge(self, candidates: dict[int, list[str]], known: Statistics) -> list[tuple[int, str, int]]:
        """The parts of the output as (block, key, hits), in the order of the queries."""
        items: list[dict[str, object]] = [
            {"block": block, "keys": json.dumps(sorted(keys)), "queries": _json(self.blocks[block])}
            for block, keys in candidates.items()
        ]
        suffix = ".parquet" if self.config.output.suffix == ".parquet" else ".jsonl"
        parts = []
        with self.progress.stage("merge", len(items)) as stage:
            for row in stream(items, workers.merge, arguments=(self.task, known, suffix), num_cpus=self._cpus()):
                parts.append((int(row["block"]), str(row["key"]), int(row["hits"])))
                stage.advance(1, queries=len(self.blocks[row["block"]]), hits=row["hits"])
        return sorted(parts)

    def _cpus(self) -> float:
        return min(self.config.cpus or 1, self.cluster.largest)


def check_writable(output: Path) -> None:
    """Raise StorageError before any work when `output` cannot be made."""
    temporary = _temporary(output)
    try:
        if output.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        output.parent.mkdir(parents=True, exist_ok=True)
        # Permission bits do not tell what the file system takes; trying does.
        temporary.touch()
        temporary.unlink()
    except OSError as error:
        raise _refused(output, error) from None


def write_output(output: Path, parts: Sequence[Path]) -> None:
    """Join the parts into `output`, which appears whole or not at all."""
    temporary = _temporary(output)
    try:
        if output.suffix == ".parquet":
            with pq.ParquetWriter(temporary, HIT_SCHEMA, compression="zstd") as writer:
                for part in parts:
                    writer.write_table(pq.read_table(part))
        else:
            with temporary.open("wb") as file:
                for part in parts:
                    with part.open("rb") as source:
                        shutil.copyfileobj(source, file, _COPY_BYTES)
        temporary.replace(output)
    except OSError as error:
        raise _refused(output, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(output: Path) -> Path:
    return output.with_name(f".{output.name}.{uuid.uuid4().hex}")


def _refused(output: Path, error: OSError) -> StorageError:
    return StorageError(f"output={output}: {error.strerror or error}; expected a file in a folder that can be written")


def _json(queries: list[Query]) -> str:
    return workers.QUERIES.dump_json(queries).decode()
