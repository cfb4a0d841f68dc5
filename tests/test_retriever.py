"""The retriever over partitions in this process: the answers of one index, and what is left when partitions fail."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_partitions import LocalPartition, follow_all, local_partitions
from small_index import DIMENSION, VectorEmbedder, build_index, make_documents, make_queries

from ray_jobs.errors import NotFoundError, TandemError, UsageError
from ray_jobs.index.manifest import commit
from ray_jobs.index.search import SearchConfig
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.models.embedder import EmbedderIdentity
from ray_jobs.storage import LocalStorage
from serve.errors import UnavailableError
from serve.group import _likely
from serve.messages import SearchCall, SearchReply
from serve.retriever import Retriever

EMBEDDER = VectorEmbedder(DIMENSION)


def publish(storage: LocalStorage, folder: Path, seed: int = 1, number: int = 1, shards: int = 4) -> None:
    documents = make_documents(seed, 40, 12)
    commit(storage, build_index(storage, folder / f"build-{number}", documents, shards, number=number))


def make(storage: LocalStorage, partitions: list[LocalPartition], partition_s: float = 5.0) -> Retriever:
    return Retriever(storage, ["small"], lambda identity: EMBEDDER, partitions, partition_s)


def started(storage: LocalStorage, partitions: list[LocalPartition], partition_s: float = 5.0) -> Retriever:
    follow_all(partitions)
    retriever = make(storage, partitions, partition_s)
    asyncio.run(retriever.follow())
    return retriever


def call(text: str, config: SearchConfig | None = None, index: str = "small") -> SearchCall:
    return SearchCall(index, text, config or SearchConfig(k=5), budget_s=10.0)


def search(retriever: Retriever, *calls: SearchCall) -> list[SearchReply | TandemError]:
    return asyncio.run(retriever.search(calls))


def answered(retriever: Retriever, *calls: SearchCall) -> list[SearchReply]:
    replies = search(retriever, *calls)
    assert all(isinstance(reply, SearchReply) for reply in replies), replies
    return [reply for reply in replies if isinstance(reply, SearchReply)]


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 999),
    shards=st.integers(1, 6),
    partitions=st.integers(1, 5),
    mode=st.sampled_from(["dense", "lexical", "hybrid"]),
    by=st.sampled_from(["document", "chunk"]),
    where=st.sampled_from([None, "year >= 2005"]),
    terms=st.sampled_from([0, 2, 100]),
    ahead=st.sampled_from([0, 3, 7]),
)
def test_any_number_of_partitions_answers_as_the_snapshot_in_one_process(
    seed: int, shards: int, partitions: int, mode: str, by: str, where: str | None, terms: int, ahead: int
) -> None:
    with (
        tempfile.TemporaryDirectory() as name,
        patch("serve.versions._VOCABULARY", terms),
        patch("serve.group._likely", lambda k, parts: ahead),
    ):
        storage = LocalStorage(Path(name) / "store")
        publish(storage, Path(name), seed, shards=shards)
        config = SearchConfig.model_validate({"mode": mode, "by": by, "where": where, "k": 7, "depth": 9})
        queries = make_queries(seed, 3)
        retriever = started(storage, local_partitions(storage, ["small"], partitions))
        replies = answered(retriever, *(call(query, config) for query in queries))
        expected = Snapshot.open(storage, "small").search(queries, config, EMBEDDER)
        assert [list(reply.hits) for reply in replies] == expected
        assert not any(reply.coverage.degraded for reply in replies)


def test_a_batch_of_different_searches_asks_each_partition_once_a_step(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "store")
    publish(storage, tmp_path)
    partitions = local_partitions(storage, ["small"], 2)
    retriever = started(storage, partitions)
    queries = make_queries(3, 6)
    configs = [SearchConfig(k=3), SearchConfig(k=4, mode="lexical"), SearchConfig(k=5, where="year > 2003")]
    replies = answered(retriever, *(call(query, configs[place % 3]) for place, query in enumerate(queries)))
    alone = [answered(retriever, call(query, configs[place % 3]))[0] for place, query in enumerate(queries)]
    assert [reply.hits for reply in replies] == [reply.hits for reply in alone]
    steps = [name for name in partitions[0].calls if name != "keys"]
    assert steps[:3] == ["vocabulary", "statistics", "candidates"]
    assert "rows" not in steps[:4]


@pytest.mark.parametrize("count", [1, 3])
def test_a_search_without_a_filter_asks_each_partition_once(tmp_path: Path, count: int) -> None:
    storage = LocalStorage(tmp_path / "store")
    publish(storage, tmp_path)
    partitions = local_partitions(storage, ["small"], count)
    retriever = started(storage, partitions)
    for partition in partitions:
        partition.calls.clear()
    answered(retriever, *(call(query, SearchConfig(k=3)) for query in make_queries(3, 6)))
    for partition in partitions:
        assert [name for name in partition.calls if name != "keys"] == ["candidates"]


@pytest.mark.parametrize(("k", "parts", "expected"), [(10, 1, 10), (10, 2, 10), (10, 16, 3), (1000, 4, 298), (1, 9, 1)])
def test_few_more_rows_are_read_ahead_than_are_listed(k: int, parts: int, expected: int) -> None:
    assert _likely(k, parts) == expected
    chance = random.Random(0)
    held = [max(Counter(chance.randrange(parts) for _ in range(k)).values()) for _ in range(300)]
    assert sum(most <= expected for most in held) / len(held) > 0.95


def test_statistics_are_asked_for_once(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "store")
    publish(storage, tmp_path)
    partitions = local_partitions(storage, ["small"], 2)
    retriever = started(storage, partitions)
    config = SearchConfig(k=3, where="year > 2003")
    (query,) = make_queries(4, 1)
    first, second = answered(retriever, call(query, config)), answered(retriever, call(query, config))
    assert first[0].hits == second[0].hits
    assert partitions[0].calls.count("statistics") == 1


@pytest.mark.parametrize("method", ["statistics", "candidates", "rows"])
@pytest.mark.parametrize("failure", ["broken", "stuck"])
def test_a_lost_partition_is_missing_from_hits_and_coverage(
    tmp_path: Path, method: str, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.versions._VOCABULARY", 0)
    monkeypatch.setattr("serve.group._likely", lambda k, parts: 1)
    storage = LocalStorage(tmp_path / "store")
    publish(storage, tmp_path)
    partitions = local_partitions(storage, ["small"], 4)
    retriever = started(storage, partitions, partition_s=0.2)
    getattr(partitions[1], failure).add(method)
    config = SearchConfig(k=40, depth=40)
    (query,) = make_queries(5, 1)
    (reply,) = answered(retriever, call(query, config))
    assert reply.coverage.missing == (1,)
    assert (reply.coverage.partitions_ok, reply.coverage.partitions_total) == (3, 4)
    manifest = Snapshot.open(storage, "small").manifest
    total = sum(shard.documents for shard in manifest.shards)
    assert reply.coverage.documents == pytest.approx(1 - manifest.shards[1].documents / total)
    lost = {document for document in _documents(storage, 1)}
    assert not lost & {hit.doc_id for hit in reply.hits}
    assert len(reply.hits) > 0
    assert [hit.rank for hit in reply.hits] == list(range(1, len(reply.hits) + 1))


def test_a_partition_that_is_lost_while_ties_are_looked_up_is_left_out(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "store")
    publish(storage, tmp_path)
    partitions = local_partitions(storage, ["small"], 4)
    retriever = started(storage, partitions, partition_s=0.5)
    partitions[2].broken.add("keys")
    (reply,) = answered(retriever, call(make_queries(6, 1)[0], SearchConfig(k=40, mode="lexical")))
    assert reply.coverage.missing == (2,)
    assert not set(_documents(storage, 2)) & {hit.doc_id for hit in reply.hits}


def test_partial_statistics_are_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.versions._VOCABULARY", 0)
    storage = LocalStorage(tmp_path / "store")
    publish(storage, tmp_path)
    partitions = local_partitions(storage, ["small"], 3)
    retriever = started(storage, partitions, partition_s=0.5)
    partitions[0].broken.add("statistics")
    config, (query,) = SearchConfig(k=10, mode="lexical"), make_queries(7, 1)
    answered(retriever, call(query, config))
    partitions[0].broken.clear()
    (reply,) = answered(retriever, call(query, config))
    assert [list(reply.hits)] == Snapshot.open(storage, "small").search([query], config, None)


def test_without_the_vocabulary_of_a_partition_queries_ask_for_their_terms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.retriever._VOCABULARY_S", 0.2)
    storage = LocalStorage(tmp_path / "store")
    publish(storage, tmp_path)
    partitions = local_partitions(storage, ["small"], 3)
    partitions[1].broken.add("vocabulary")
    retriever = started(storage, partitions)
    config, (query,) = SearchConfig(k=10, mode="lexical"), make_queries(7, 1)
    (reply,) = answered(retriever, call(query, config))
    assert [list(reply.hits)] == Snapshot.open(storage, "small").search([query], config, None)
    assert "statistics" in partitions[0].calls


def test_without_any_partition_nothing_is_found_and_nothing_fails(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "store")
    publish(storage, tmp_path)
    partitions = local_partitions(storage, ["small"], 2)
    retriever = started(storage, partitions, partition_s=0.2)
    for partition in partitions:
        partition.broken.add("candidates")
    (reply,) = answered(retriever, call(make_queries(8, 1)[0]))
    assert (reply.hits, reply.coverage.documents) == ((), 0.0)


def test_what_cannot_be_searched_does_not_harm_the_rest_of_the_batch(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "store")
    publish(storage, tmp_path)
    retriever = started(storage, local_partitions(storage, ["small"], 2))
    (query,) = make_queries(9, 1)
    bad_filter = SearchConfig(where="colour = 'red'")
    empty, unknown, filtered, good = search(
        retriever, call("  "), call(query, index="other"), call(query, bad_filter), call(query)
    )
    assert isinstance(empty, UsageError)
    assert isinstance(unknown, NotFoundError)
    assert "index=other" in str(unknown)
    assert isinstance(filtered, UsageError)
    assert isinstance(good, SearchReply)


def test_two_revisions_of_one_model_are_two_embedders(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "store")
    for revision in ("r1", "r2"):
        manifest = build_index(storage, tmp_path / revision, make_documents(1, 10, 5), 1, name=revision)
        identity = manifest.embedder.model_copy(update={"revision": revision})
        commit(storage, manifest.model_copy(update={"embedder": identity}))
    asked: list[str] = []

    def embedder(identity: EmbedderIdentity) -> VectorEmbedder:
        asked.append(identity.revision)
        return EMBEDDER

    partitions = local_partitions(storage, ["r1", "r2"], 1)
    follow_all(partitions)
    retriever = Retriever(storage, ["r1", "r2"], embedder, partitions, 5.0)
    asyncio.run(retriever.follow())
    asked.clear()
    query = make_queries(1, 1)[0]
    answered(retriever, call(query, index="r1"), call(query, index="r2"))
    assert sorted(asked) == ["r1", "r2"]


def test_a_search_that_comes_before_the_first_version_waits_for_it(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "store")
    publish(storage, tmp_path)
    partitions = local_partitions(storage, ["small"], 2)
    retriever = make(storage, partitions)

    async def search_then_follow() -> list[SearchReply | TandemError]:
        searching = asyncio.create_task(retriever.search([call(make_queries(1, 1)[0])]))
        await asyncio.sleep(0.1)
        assert not searching.done()
        await asyncio.to_thread(follow_all, partitions)
        await retriever.follow()
        return await searching

    (reply,) = asyncio.run(search_then_follow())
    assert isinstance(reply, SearchReply)
    assert reply.hits


def test_without_any_version_the_index_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.retriever._STARTS_S", 0.1)
    storage = LocalStorage(tmp_path / "store")
    publish(storage, tmp_path)
    retriever = make(storage, local_partitions(storage, ["small"], 2))
    asyncio.run(retriever.follow())
    (reply,) = search(retriever, call(make_queries(1, 1)[0]))
    assert isinstance(reply, UnavailableError)


def test_a_new_version_answers_once_every_replica_has_it(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "store")
    publish(storage, tmp_path)
    partitions = local_partitions(storage, ["small"], 2, replicas=2)
    retriever = started(storage, partitions)
    publish(storage, tmp_path, seed=2, number=2)
    (query,) = make_queries(10, 1)

    def answering() -> int:
        asyncio.run(retriever.follow())
        return answered(retriever, call(query))[0].snapshot

    for partition in partitions:
        for host in partition.hosts:
            assert answering() == 1
            host.follow()
    assert answering() == 2
    expected = Snapshot.open(storage, "small").search([query], SearchConfig(k=5), EMBEDDER)
    assert [list(answered(retriever, call(query))[0].hits)] == expected


def test_a_replica_that_lacks_the_version_opens_it_while_it_is_asked_again(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "store")
    publish(storage, tmp_path)
    partitions = local_partitions(storage, ["small"], 2)
    retriever = started(storage, partitions)
    publish(storage, tmp_path, seed=2, number=2)
    # The first partition was replaced: it knows nothing but the newest version.
    partitions[0].hosts = local_partitions(storage, ["small"], 2)[0].hosts
    partitions[0].hosts[0].follow()
    (reply,) = answered(retriever, call(make_queries(11, 1)[0]))
    assert reply.snapshot == 1
    assert not reply.coverage.degraded


def test_a_described_index_tells_what_is_missing_and_what_comes(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "store")
    publish(storage, tmp_path)
    partitions = local_partitions(storage, ["small"], 2)
    retriever = started(storage, partitions)
    publish(storage, tmp_path, seed=2, number=2)
    partitions[0].hosts[0].follow()
    partitions[1].broken.add("held")
    asyncio.run(retriever.follow())
    (described,) = retriever.describe()
    # A partition that does not answer has no say: the others go on.
    assert (described.snapshot, described.loading) == (2, None)
    assert described.coverage.missing == (1,)


def _documents(storage: LocalStorage, shard: int) -> list[str]:
    snapshot = Snapshot.open(storage, "small")
    column: list[str] = snapshot.partition.shards[shard].rows.table.column("doc_id").to_pylist()
    return column
