"""What every task of mining is given, and the two steps that run on workers; no Ray here.

    find    a shard of the index        -> where the positives lie in it
    mine    a block of prepared rows    -> rows with negatives, in a file of the store

Guaranteed: a block's file is that of its rows alone, in order, whoever makes it. Memory: the index is mapped, and one
block of rows with its hits and, for a reranker, the other positives of its queries.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Set as AbstractSet
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from ray_jobs.index import layout
from ray_jobs.index.hits import Hit
from ray_jobs.index.manifest import read
from ray_jobs.index.rows import Rows
from ray_jobs.index.search import SearchConfig
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.models.embedder import Embedder, EmbedderConfig
from ray_jobs.models.reranker import Reranker
from ray_jobs.models.reranker_config import RerankerConfig
from ray_jobs.storage import Storage, new_id, open_storage
from ray_jobs.train.data.counting import counter, lengths
from ray_jobs.train.data.keys import LENGTH
from ray_jobs.train.data.kind import Kind, schema_of
from ray_jobs.train.data.kinds import KINDS
from ray_jobs.train.data.mine_config import MineConfig
from ray_jobs.train.data.mined_rows import BEFORE, Asked, RowMiner
from ray_jobs.train.data.mining_record import MinedSplit
from ray_jobs.train.data.positives import Place, Wanted, find

_MOST_HITS = 10_000  # what a search gives at most
_DOCUMENTS_KEPT = 4096


class BlockRow(BaseModel):
    """Where the positives of one row's query lie, its own first, and which rows have the others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    places: tuple[tuple[Place, ...], ...]
    hashes: frozenset[str]
    others: tuple[tuple[str, int], ...]  # split of a row, and its place there


class Block(BaseModel):
    """Some rows of one split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    split: str
    start: int
    rows: tuple[BlockRow, ...]


class MinedBlock(BaseModel):
    """What became of a block; returned only when its file is in the store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    split: str
    rows: int  # that were read
    made: int  # rows of the file
    key: str
    record: MinedSplit


class MineTask(BaseModel):
    """What is the same for all shards and blocks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: MineConfig
    snapshot: int
    files: dict[str, tuple[str, str]]  # key and sha256 of each split
    folder: str  # of the run, in the store
    wanted: str  # key of what `find` looks for
    forbidden: str  # key of the documents that rows to train on get no negatives from
    tokenizer: str | None
    embedder: EmbedderConfig | None
    reranker: RerankerConfig | None

    def open(self) -> Miner:
        """The steps, on this worker."""
        return Miner(self, open_storage(self.config.store))


class Miner:
    """The steps; models and index are opened when they are first needed."""

    def __init__(self, task: MineTask, storage: Storage) -> None:
        self._task = task
        self._storage = storage
        self._kind: Kind = KINDS[task.config.output_kind]
        self._chunks = lru_cache(_DOCUMENTS_KEPT)(self._fetch)

    def find(self, shard: int) -> list[tuple[str, Place]]:
        """The positives that lie in one shard."""
        manifest = read(self._storage, self._task.config.index, self._task.snapshot)
        record = manifest.shards[shard].files[layout.ROWS]
        rows = Rows.open(self._storage.local(record.key, record.sha256))
        return list(find(self._wanted, rows.table, shard))

    def mine(self, block: Block) -> MinedBlock:
        """The rows of one block with their negatives."""
        config = self._task.config
        rows = self._read(block)
        texts = self._texts({other for own in block.rows for other in own.others}) if self._shows_others else {}
        asked = [
            Asked(row, own.places, own.hashes, [texts[other] for other in own.others if other in texts])
            for row, own in zip(rows, block.rows, strict=True)
        ]
        depth = min(_MOST_HITS, config.range_max + max(one.chunks for one in asked))
        search = SearchConfig.model_validate(config.search.model_dump() | {"k": depth, "by": "chunk"})
        hits = self._snapshot.search([one.query for one in asked], search, self._embedder)
        forbidden = self._forbidden if block.split == "train" else frozenset[str]()
        made, record = RowMiner(config, self._chunks, forbidden, self._reranker).mine(asked, hits)
        key = f"{self._task.folder}/{new_id()}.parquet"
        with self._storage.scratch() as folder:
            path = folder / "rows.parquet"
            pq.write_table(self._table(made), path)
            self._storage.upload(key, path)
        return MinedBlock(
            number=block.number, split=block.split, rows=len(rows), made=len(made), key=key, record=record
        )

    @cached_property
    def _wanted(self) -> Wanted:
        return Wanted.model_validate_json(self._storage.read(self._task.wanted))

    @cached_property
    def _forbidden(self) -> frozenset[str]:
        return frozenset(json.loads(self._storage.read(self._task.forbidden)))

    @cached_property
    def _snapshot(self) -> Snapshot:
        return Snapshot.open(self._storage, self._task.config.index, self._task.snapshot)

    @cached_property
    def _embedder(self) -> Embedder | None:
        found = self._task.embedder
        return None if found is None else Embedder.load(found, self._storage)

    @cached_property
    def _reranker(self) -> Reranker | None:
        found = self._task.reranker
        return None if found is None else Reranker.load(found, self._storage)

    @cached_property
    def _counter(self) -> Any:
        return counter(self._task.tokenizer, self._storage)

    def _read(self, block: Block) -> list[dict[str, Any]]:
        """The rows of a block; only the row groups that hold them are read."""
        file = pq.ParquetFile(self._storage.local(*self._task.files[block.split]))
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        ends = list(accumulate(sizes))
        first, last = bisect_right(ends, block.start), bisect_left(ends, block.start + len(block.rows))
        table = file.read_row_groups(list(range(first, last + 1)))
        table = table.slice(block.start - (ends[first] - sizes[first]), len(block.rows))
        found: list[dict[str, Any]] = table.to_pylist()
        return found

    @property
    def _shows_others(self) -> bool:
        """Whether the reranker sees the other positives of a query as their rows have them."""
        return self._task.reranker is not None and not self._task.config.shows_index

    def _texts(self, wanted: AbstractSet[tuple[str, int]]) -> dict[tuple[str, int], str]:
        """The positives of some rows; of each split one row group at a time."""
        found: dict[tuple[str, int], str] = {}
        for split in sorted({split for split, _ in wanted}):
            file = pq.ParquetFile(self._storage.local(*self._task.files[split]))
            column = "positive" if "positive" in file.schema_arrow.names else "passage"
            places = np.array(sorted(place for other, place in wanted if other == split))
            start = 0
            for number in range(file.num_row_groups):
                end = start + file.metadata.row_group(number).num_rows
                here = places[(places >= start) & (places < end)]
                if len(here):
                    texts = file.read_row_group(number, columns=[column]).column(0).take(here - start).to_pylist()
                    found |= {(split, place): text for place, text in zip(here.tolist(), texts, strict=True)}
                start = end
        return found

    def _fetch(self, place: Place) -> list[Hit]:
        rows = self._snapshot.partition.shards[place.shard].rows
        return [Hit.of(row) for row in rows.take(np.arange(place.first, place.first + place.count))]

    def _table(self, rows: list[dict[str, Any]]) -> pa.Table:
        """The rows with the ids that they had and the lengths of their texts beside them."""
        table = pa.Table.from_pylist(rows, schema=schema_of(self._kind))
        table = table.append_column(BEFORE, pa.array([row.get(BEFORE) for row in rows], pa.string()))
        for name, longest in lengths(self._kind, rows, self._counter).items():
            table = table.append_column(
                pa.field(LENGTH + name, pa.int32(), nullable=False), pa.array(longest, pa.int32())
            )
        return table
