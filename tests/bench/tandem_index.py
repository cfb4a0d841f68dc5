"""A Tandem snapshot from vectors that exist already, with the parts the ingest job uses."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ray_jobs.corpus.chunking import ChunkingConfig
from ray_jobs.index import layout
from ray_jobs.index.factory import training_size
from ray_jobs.index.ladder import Wanted, choose
from ray_jobs.index.manifest import Counts, FileRecord, LexicalRecord, MadeBy, Manifest, ShardRecord, TemplateRecord
from ray_jobs.index.search import Partition
from ray_jobs.index.shard import publish_shard, write_shard
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.index.template import default_nprobe, train
from ray_jobs.models.embedder import EmbedderIdentity
from ray_jobs.storage import Storage, new_id, sha256_of


def make_template(storage: Storage, index: str, factory: str, vectors: npt.NDArray[np.float16]) -> TemplateRecord:
    """Train the index type on a random sample, as the ingest job does."""
    chosen = choose(factory, Wanted(len(vectors), vectors.shape[1]))
    count = training_size(chosen, len(vectors))
    rows = np.sort(np.random.default_rng(0).choice(len(vectors), count, replace=False))
    with storage.scratch() as folder:
        path = folder / "template.faiss"
        trained_on = train(chosen, vectors[rows].astype(np.float32), vectors.shape[1], path)
        digest = sha256_of(path)
        record = FileRecord(key=layout.template(index, digest), size=path.stat().st_size, sha256=digest)
        storage.upload(record.key, path)
    return TemplateRecord(
        factory=chosen.factory,
        file=record,
        metric="inner_product",
        nprobe=default_nprobe(chosen),
        trained_on=trained_on,
    )


def build(
    storage: Storage,
    index: str,
    template: TemplateRecord,
    identity: EmbedderIdentity,
    vectors: npt.NDArray[np.float16],
    rows: pa.Table,
    shards: int,
) -> Snapshot:
    """Vectors (n, d) and their rows in `shards` shards of whole documents, in order; row i is the i-th of all."""
    starts = np.flatnonzero(rows.column("ordinal").to_numpy() == 0)
    wished = np.linspace(0, len(vectors), shards + 1)[1:-1]
    bounds = [0, *starts[np.searchsorted(starts, wished)].tolist(), len(vectors)]
    path = storage.local(template.file.key, template.file.sha256)
    records: list[ShardRecord] = []
    for first, last in pairwise(bounds):
        with storage.scratch() as folder:
            part = (rows.slice(first, last - first), vectors[first:last])
            records.append(publish_shard(storage, index, new_id(), write_shard(folder, [part], path, {}, "english")))
    manifest = _manifest(index, template, identity, records)
    return Snapshot(manifest, Partition.open(storage, manifest))


def template_path(storage: Storage, template: TemplateRecord) -> Path:
    """The trained, empty index, for a peer that shall have the same."""
    return storage.local(template.file.key, template.file.sha256)


def _manifest(index: str, template: TemplateRecord, identity: EmbedderIdentity, shards: list[ShardRecord]) -> Manifest:
    made_by = MadeBy(job_id=new_id(), tandem="", created="", config_hash="", seconds=0.0)
    return Manifest(
        index=index,
        number=1,
        parent=None,
        embedder=identity,
        template=template,
        shards=tuple(shards),
        metadata={},
        chunking=ChunkingConfig().model_dump(),
        cleaning={},
        lexical=LexicalRecord(language="english", chunks=sum(shard.rows for shard in shards), total_length=0),
        documents=(),
        ledger=(),
        seen=None,
        dead_letters=(),
        counts=Counts(),
        recall=None,
        made_by=made_by,
        config={},
    )
