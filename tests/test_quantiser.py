"""Shards without their quantiser, and lists that the caller has chosen for all of them, change no answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
from local_partitions import follow_all, local_partitions
from rungs import DIMENSION, EMBEDDER, FACTORIES, LISTS, found, queries, snapshot, vectors

from ray_jobs.errors import CorruptError
from ray_jobs.index import layout
from ray_jobs.index.dense import DenseShard
from ray_jobs.index.quantiser import Quantiser, lacks_quantiser
from ray_jobs.index.search import Partition, Queries, SearchConfig, Statistics, make_plan
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.search.queries import Query
from ray_jobs.search.stages import SearchStages
from ray_jobs.storage import LocalStorage
from serve.messages import SearchCall, SearchReply
from serve.retriever import Retriever

CONFIG = SearchConfig(mode="dense", k=10)
SMALL = 1_200  # chunks


@pytest.fixture(params=FACTORIES)
def factory(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def apart(folder: Path, factory: str, shards: int) -> Snapshot:
    """A snapshot whose shards are stored without the quantiser."""
    with patch("ray_jobs.index.shard.APART_BYTES", 0):
        return snapshot(folder, factory, shards, SMALL)


def test_shards_that_share_a_quantiser_answer_as_those_with_their_own(tmp_path: Path, factory: str) -> None:
    own = snapshot(tmp_path / "own", factory, 4, SMALL)
    shared = apart(tmp_path / "shared", factory, 4)
    for one, other in zip(own.manifest.shards, shared.manifest.shards, strict=True):
        saved = one.files[layout.VECTORS_FAISS].size - other.files[layout.VECTORS_FAISS].size
        assert saved >= 4 * LISTS * DIMENSION
    assert found(shared, queries(20), CONFIG) == found(own, queries(20), CONFIG)
    filtered = CONFIG.model_copy(update={"by": "chunk", "nprobe": LISTS})
    assert found(shared, queries(20), filtered) == found(own, queries(20), filtered)


def test_lists_that_the_caller_chose_are_those_that_each_shard_chooses(tmp_path: Path, factory: str) -> None:
    opened = apart(tmp_path, factory, 4)
    storage = LocalStorage(tmp_path / "store-4")
    asked = Queries(vectors(20, seed=4), [[] for _ in range(20)])
    plan = make_plan(opened.manifest, CONFIG, None, 0)
    probes = Quantiser(storage, opened.manifest.template.file).probe(vectors(20, seed=4), plan.nprobe)
    assert probes is not None
    for numbers in ((0, 1), (2,), (3,)):
        part = Partition.open(storage, opened.manifest, numbers)
        itself = part.candidates(asked, plan, Statistics())["dense"]
        told = part.candidates(replace(asked, probes=probes), plan, Statistics())["dense"]
        for name in ("query", "shard", "row", "selection", "score"):
            assert getattr(itself, name).tolist() == getattr(told, name).tolist()


def test_a_search_looks_into_the_lists_that_it_is_told(tmp_path: Path) -> None:
    opened = apart(tmp_path, f"IVF{LISTS},SQ8", 2)
    asked = Queries(vectors(3, seed=4), [[] for _ in range(3)])
    plan = make_plan(opened.manifest, CONFIG, None, 0)
    probes = opened.partition.shards[0].dense.probe(vectors(3, seed=4), plan.nprobe)
    assert probes is not None
    elsewhere = replace(probes, lists=(probes.lists + 1) % LISTS)
    itself = opened.partition.candidates(asked, plan, Statistics())["dense"]
    told = opened.partition.candidates(replace(asked, probes=elsewhere), plan, Statistics())["dense"]
    assert sorted(itself.row.tolist()) != sorted(told.row.tolist())


@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_a_server_chooses_the_lists_once_for_all_partitions(tmp_path: Path, mode: str) -> None:
    opened = apart(tmp_path, FACTORIES[1], 4)
    storage = LocalStorage(tmp_path / "store-4")
    config = SearchConfig.model_validate({"mode": mode, "k": 10})
    partitions = local_partitions(storage, ["small"], 3)
    follow_all(partitions)
    retriever = Retriever(storage, ["small"], lambda identity: EMBEDDER, partitions, 5.0)
    with patch("ray_jobs.index.quantiser.APART_BYTES", 0):
        asyncio.run(retriever.follow())
    with patch("ray_jobs.index.dense.DenseShard.probe", lambda *_: pytest.fail("a partition chose lists itself")):
        replies = asyncio.run(
            retriever.search([SearchCall("small", text, config, budget_s=10.0) for text in queries(5)])
        )
    hits = [list(reply.hits) for reply in replies if isinstance(reply, SearchReply)]
    assert hits == opened.search(queries(5), config, EMBEDDER)


def test_a_job_chooses_the_lists_once_for_all_partitions(tmp_path: Path) -> None:
    opened = apart(tmp_path, FACTORIES[3], 4)
    storage = LocalStorage(tmp_path / "store-4")
    texts = queries(5)
    with patch("ray_jobs.index.quantiser.APART_BYTES", 0):
        stages = SearchStages(storage, "small", 1, "job", CONFIG)
    key, _ = stages.embed(texts, EMBEDDER)
    with patch("ray_jobs.index.dense.DenseShard.probe", lambda *_: pytest.fail("a partition chose lists itself")):
        parts = [stages.candidates(numbers, key, Statistics()) for numbers in ((0, 1), (2, 3))]
    asked = [Query(str(number), text) for number, text in enumerate(texts)]
    hits_key, count = stages.merge(parts, asked, Statistics(), ".parquet")
    import pyarrow.parquet as pq

    rows = pq.read_table(storage.local(hits_key)).column("hits").to_pylist()
    expected = opened.search(texts, CONFIG, EMBEDDER)
    assert [[hit["chunk_id"] for hit in hits] for hits in rows] == [[hit.chunk_id for hit in own] for own in expected]
    assert count == sum(map(len, expected))


def test_a_shard_without_its_quantiser_is_not_searched(tmp_path: Path) -> None:
    opened = apart(tmp_path, f"IVF{LISTS},SQ8", 1)
    storage = LocalStorage(tmp_path / "store-1")
    files = opened.manifest.shards[0].files
    paths = [storage.local(files[name].key) for name in (layout.VECTORS_FAISS, layout.VECTORS_F16)]
    alone = DenseShard.open(*paths, DIMENSION)
    assert lacks_quantiser(alone.index)
    with pytest.raises(CorruptError, match="opened without its template"):
        alone.probe(vectors(1), 4)


def test_a_shard_of_another_template_is_refused(tmp_path: Path) -> None:
    opened = apart(tmp_path / "one", f"IVF{LISTS},SQ8", 1)
    other = apart(tmp_path / "other", f"IVF{2 * LISTS},SQ8", 1)
    storage = LocalStorage(tmp_path / "one" / "store-1")
    files = opened.manifest.shards[0].files
    paths = [storage.local(files[name].key) for name in (layout.VECTORS_FAISS, layout.VECTORS_F16)]
    quantiser = Quantiser(LocalStorage(tmp_path / "other" / "store-1"), other.manifest.template.file)
    with pytest.raises(CorruptError, match="not the quantiser of 16 lists of 32 dimensions"):
        DenseShard.open(*paths, DIMENSION, quantiser)


def test_the_shards_of_a_process_have_one_quantiser_which_lives_as_long_as_they(tmp_path: Path) -> None:
    import faiss

    shards = list(apart(tmp_path, FACTORIES[3], 3).partition.shards.values())
    places = {int(faiss.extract_index_ivf(shard.dense.index).quantizer.this) for shard in shards}
    assert len(places) == 1
    last = shards.pop()
    shards.clear()
    probes = last.dense.probe(vectors(2), 4)
    assert probes is not None
    assert probes.lists.shape == (2, 4)
