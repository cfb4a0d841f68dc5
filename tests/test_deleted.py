"""Invariant 5: a deleted document never comes back, in any mode, and leaves the answers of an index without it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_index import (
    DIMENSION,
    SmallDocument,
    VectorEmbedder,
    build_index,
    make_documents,
    make_queries,
    record_of,
)
from test_sharding import MODES, found

from ray_jobs.errors import CorruptError
from ray_jobs.index.deleted import bury, live_rows
from ray_jobs.index.manifest import Manifest, commit
from ray_jobs.index.search import SearchConfig
from ray_jobs.index.shard import Shard
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.index.verify import verify
from ray_jobs.storage import LocalStorage


def without(storage: LocalStorage, manifest: Manifest, gone: set[str]) -> Manifest:
    """The next snapshot, in which the documents `gone` are dead, one bitmap after another."""
    records = list(manifest.shards)
    for number, record in enumerate(records):
        ids = Shard.open(storage, record, number, manifest.embedder.dimension).rows.table.column("doc_id").to_pylist()
        for document in sorted(gone):
            rows = np.array([row for row, doc_id in enumerate(ids) if doc_id == document], np.int64)
            if len(rows):
                records[number] = bury(storage, manifest.index, records[number], rows)
    chunks = sum(record.rows - record.dead_rows for record in records)
    counts = manifest.counts.model_copy(update={"chunks": chunks})
    update = {"shards": tuple(records), "counts": counts, "number": manifest.number + 1}
    return manifest.model_copy(update=update)


def published(storage: LocalStorage, manifest: Manifest) -> Snapshot:
    commit(storage, manifest)
    return Snapshot.open(storage, manifest.index, manifest.number)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(2, 60),
    shards=st.integers(1, 6),
    share=st.floats(0, 1),
    k=st.integers(1, 12),
    by=st.sampled_from(["document", "chunk"]),
    mode=st.sampled_from(MODES),
    where=st.sampled_from([None, "year >= 2005"]),
    exact_below=st.sampled_from([0, 20_000]),
)
def test_answers_are_those_of_an_index_that_never_had_what_is_deleted(
    seed: int, count: int, shards: int, share: float, k: int, by: str, mode: str, where: str | None, exact_below: int
) -> None:
    documents = make_documents(seed, count, 20)
    chance = np.random.default_rng(seed)
    gone = {document.doc_id for document in documents[1:] if chance.random() < share}
    config = SearchConfig.model_validate(
        {"mode": mode, "k": k, "by": by, "where": where, "depth": 7, "exact_below": exact_below}
    )
    queries = make_queries(seed, 3)
    with tempfile.TemporaryDirectory() as name:
        storage = LocalStorage(Path(name))
        whole = build_index(storage, Path(name) / "build", documents, shards)
        kept = [document for document in documents if document.doc_id not in gone]
        rest = build_index(storage, Path(name) / "build", kept, 1, name="rest")
        after = found(published(storage, without(storage, whole, gone)), queries, config)
        assert after == found(published(storage, rest), queries, config)


@pytest.mark.parametrize(
    "factory", ["IVF8,Flat", "IVF8,SQ8", "OPQ4_8,IVF8,PQ4x4", "RR8,IVF8,RaBitQ4", "IVF8,PQ4x4fs", "HNSW8"]
)
def test_in_no_type_of_index_a_dead_row_is_found(tmp_path: Path, factory: str) -> None:
    chance = np.random.default_rng(0)
    documents = [
        SmallDocument(f"d{n:03d}", [("apple", chance.standard_normal(DIMENSION).tolist())]) for n in range(400)
    ]
    storage = LocalStorage(tmp_path)
    whole = build_index(storage, tmp_path / "build", documents, 3, factory, nprobe=8)
    gone = {document.doc_id for document in documents if chance.random() < 0.9}
    snapshot = published(storage, without(storage, whole, gone))
    queries = [" ".join(map(str, chance.standard_normal(DIMENSION))) + "| apple" for _ in range(30)]
    for mode in MODES:
        config = SearchConfig.model_validate({"mode": mode, "k": 10})
        hits = snapshot.search(queries, config, VectorEmbedder(DIMENSION))
        assert all(len(own) == 10 for own in hits)
        assert not {hit.doc_id for own in hits for hit in own} & gone


def test_a_reader_of_the_snapshot_before_goes_on_seeing_what_it_saw(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    documents = make_documents(3, 30, 20)
    whole = build_index(storage, tmp_path / "build", documents, 2)
    before = published(storage, whole)
    config, queries = SearchConfig(k=10), make_queries(3, 4)
    seen = found(before, queries, config)
    after = published(storage, without(storage, whole, {document.doc_id for document in documents[:20]}))
    assert found(before, queries, config) == found(Snapshot.open(storage, "small", 1), queries, config) == seen
    assert found(after, queries, config) != seen
    assert verify(storage, after.manifest).problems == ()


def test_an_open_shard_serves_the_next_snapshot_with_its_own_dead_rows(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    whole = build_index(storage, tmp_path / "build", make_documents(3, 30, 20), 1)
    shard = Shard.open(storage, whole.shards[0], 0, DIMENSION)
    record = bury(storage, "small", whole.shards[0], np.array([0, 2]))
    later = shard.under(storage, record, 4)
    assert (later.number, later.dense, later.live_count) == (4, shard.dense, shard.live_count - 2)
    assert shard.live is None
    assert later.live is not None
    assert np.flatnonzero(~later.live).tolist() == [0, 2]


@pytest.mark.parametrize("damage", ["cut", "bit"])
def test_a_damaged_bitmap_is_refused(tmp_path: Path, damage: str) -> None:
    storage = LocalStorage(tmp_path)
    whole = build_index(storage, tmp_path / "build", make_documents(3, 30, 20), 1)
    record = bury(storage, "small", whole.shards[0], np.array([0, 2]))
    assert record.deleted is not None
    path = tmp_path / record.deleted.key
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:-1] if damage == "cut" else bytes([content[0] ^ 8]) + content[1:])
    with pytest.raises(CorruptError, match="deleted"):
        live_rows(storage, record)
    trusted = record.model_copy(update={"deleted": record.deleted.model_copy(update={"sha256": None})})
    with pytest.raises(CorruptError, match=r"expected a bitmap of \d+ rows, 2 of them dead"):
        live_rows(storage, trusted)


@given(st.integers(1, 40), st.data())
def test_bitmaps_add_up(rows: int, data: st.DataObject) -> None:
    dead: set[int] = set()
    with tempfile.TemporaryDirectory() as name:
        storage, record = LocalStorage(Path(name)), record_of(rows)
        for _ in range(3):
            more = data.draw(st.sets(st.integers(0, rows - 1), max_size=rows))
            record = bury(storage, "small", record, np.array(sorted(more), np.int64))
            dead |= more
            live = live_rows(storage, record)
            assert live is not None
            assert np.flatnonzero(~live).tolist() == sorted(dead)
            assert record.dead_rows == len(dead)
