"""The stages of an ingest run as Ray Data sees them: rows of JSON in, receipts of JSON out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from pydantic import TypeAdapter

from ray_jobs.corpus.chunking import ChunkingConfig
from ray_jobs.corpus.metadata import Schema
from ray_jobs.corpus.planning import SourcePart
from ray_jobs.index import layout
from ray_jobs.index.manifest import FileRecord
from ray_jobs.ingest.build import ShardBuilder
from ray_jobs.ingest.decide import displaced
from ray_jobs.ingest.embed import GroupEmbedder
from ray_jobs.ingest.ledger import publish_partition, read_partition
from ray_jobs.ingest.receipts import Dropped, ShardPlan, StagedGroup
from ray_jobs.ingest.stage import Stager
from ray_jobs.models.embedder import Embedder, EmbedderConfig
from ray_jobs.storage import open_storage

Batch = dict[str, Any]
PARTS: TypeAdapter[tuple[SourcePart, ...]] = TypeAdapter(tuple[SourcePart, ...])
DROPPED: TypeAdapter[list[Dropped]] = TypeAdapter(list[Dropped])
FILES: TypeAdapter[tuple[FileRecord, ...]] = TypeAdapter(tuple[FileRecord, ...])


def stage(batch: Batch, arguments: tuple[str, str, str, int]) -> Iterator[Batch]:
    """Rows {group, parts} to {receipt: StagedGroup}."""
    store, index, run, partitions = arguments
    stager = Stager(open_storage(store), index, run, partitions)
    for group, parts in zip(batch["group"], batch["parts"], strict=True):
        yield _row(stager.stage(int(group), PARTS.validate_json(parts)).model_dump_json())


def keep(batch: Batch, arguments: tuple[str, str, str, int, bytes, frozenset[str]]) -> Iterator[Batch]:
    """Rows {group, documents} to {receipt: StagedGroup}, for documents of the snapshot before."""
    store, index, run, partitions, ledger, vanished_from = arguments
    stager = Stager(open_storage(store), index, run, partitions)
    for group, documents in zip(batch["group"], batch["documents"], strict=True):
        record = FileRecord.model_validate_json(documents)
        kept = stager.keep(int(group), record, FILES.validate_json(ledger), vanished_from)
        yield _row(kept.model_dump_json())


def decide(batch: Batch, arguments: tuple[str, list[tuple[int, bool, str]]]) -> Iterator[Batch]:
    """Rows {partition} to {receipt: list of Dropped}; `arguments` name the groups in order of precedence."""
    store, groups = arguments
    storage = open_storage(store)
    for partition in batch["partition"]:
        tables = read_partition(
            storage, [key for _, _, key in groups], int(partition), ["doc_id", "version", "row", "source"]
        )
        known = [(number, kept, table) for (number, kept, _), table in zip(groups, tables, strict=True)]
        yield _row(DROPPED.dump_json(displaced(known)).decode())


class Embed:
    """Rows {staged, dropped} to {receipt: EmbeddedGroup}."""

    def __init__(
        self,
        store: str,
        index: str,
        run: str,
        partitions: int,
        embedder: EmbedderConfig,
        chunking: ChunkingConfig,
        schema: Schema,
    ) -> None:
        self._storage = open_storage(store)
        self._run = (index, run, partitions)
        self._config = (embedder, chunking, schema)

    @cached_property
    def _groups(self) -> GroupEmbedder:
        # Not in the constructor: of an error there, Ray brings the driver no more than its text.
        embedder, chunking, schema = self._config
        loaded = Embedder.load(embedder, self._storage)
        return GroupEmbedder(self._storage, *self._run, loaded, chunking, schema)

    def __call__(self, batch: Batch) -> Iterator[Batch]:
        """Embed the groups of a batch, one ahead of the other."""
        groups = (
            (StagedGroup.model_validate_json(staged), DROPPED.validate_json(dropped))
            for staged, dropped in zip(batch["staged"], batch["dropped"], strict=True)
        )
        for receipt in self._groups.embed_all(groups):
            yield _row(receipt.model_dump_json())


def build(batch: Batch, arguments: tuple[str, str, FileRecord, Schema, int, str]) -> Iterator[Batch]:
    """Rows {plan} to {receipt: ShardReceipt}."""
    store, index, template, schema, dimension, language = arguments
    builder = ShardBuilder(open_storage(store), index, template, schema, dimension, language)
    for plan in batch["plan"]:
        yield _row(builder.build(ShardPlan.model_validate_json(plan)).model_dump_json())


def ledger(batch: Batch, arguments: tuple[str, str, str, list[str]]) -> Iterator[Batch]:
    """Rows {partition} to {receipt: FileRecord, partition}."""
    store, index, ledger_id, keys = arguments
    storage = open_storage(store)
    for partition in batch["partition"]:
        with storage.scratch() as folder:
            key = layout.ledger(index, ledger_id, int(partition))
            record = publish_partition(storage, keys, int(partition), key, folder)
        yield _row(record.model_dump_json())


def _row(receipt: str) -> Batch:
    return {"receipt": [receipt]}
