"""The retriever: embeds a batch of queries, asks every partition once for all of them, and merges what comes back.

Guaranteed: a reply is made from one version of its index, the same in every step; it is what `Snapshot.search` of that
version gives when all partitions answered, and says in its coverage which did not. A partition that fails or is late
costs its share of the hits, never the query. Not guaranteed: that a partial answer has the best hits of the whole;
merged top-k is exact over the partitions that answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

from ray_jobs.errors import NotFoundError, TandemError
from ray_jobs.index.manifest import read
from ray_jobs.index.merge import Ints
from ray_jobs.index.quantiser import for_several
from ray_jobs.index.snapshot import QueryEmbedder
from ray_jobs.models.embedder import EmbedderIdentity
from ray_jobs.storage import Storage
from serve.errors import UnavailableError
from serve.group import Group, LostError, grouped
from serve.messages import Coverage, IndexDescription, SearchCall, SearchReply
from serve.partition_client import Ask, PartitionClient, ask_all
from serve.partition_messages import Version
from serve.versions import ServedVersion, choose

_VOCABULARY_S = 30.0
_STARTS_S = 10.0  # from its start, in which a retriever waits for a first version
_LOOK_S = 0.02

C = TypeVar("C")
R = TypeVar("R")


class EmbedderSource(Protocol):
    """Gives the embedder that belongs to an index; loading one blocks."""

    def __call__(self, identity: EmbedderIdentity) -> QueryEmbedder:
        """The embedder for queries of an index that `identity` made."""
        ...


class Retriever:
    """Answers batches of queries over the partitions of some indices."""

    def __init__(
        self,
        storage: Storage,
        indexes: Sequence[str],
        embedders: EmbedderSource,
        partitions: Sequence[PartitionClient],
        partition_s: float,
    ) -> None:
        self._storage = storage
        self._embedders = embedders
        self._partitions = tuple(partitions)
        self._partition_s = partition_s
        self._served: dict[str, ServedVersion | None] = dict.fromkeys(indexes)
        self._created = time.monotonic()
        self._newest: dict[str, int] = {}
        self._held: list[list[list[Version]]] = [[] for _ in partitions]  # of each replica of each partition

    async def follow(self) -> None:
        """Ask the partitions what they hold, and answer from a newer version once all of them have it."""
        used = [served.version for served in self._served.values() if served is not None]
        replies = await asyncio.gather(
            *(client.held(used, self._partition_s) for client in self._partitions), return_exceptions=True
        )
        self._held = [[] if isinstance(reply, BaseException) else reply for reply in replies]
        for index, served in self._served.items():
            numbers = [
                [[version.number for version in replica if version.index == index] for replica in replicas]
                for replicas in self._held
            ]
            current = None if served is None else served.version.number
            number = choose(current, numbers)
            self._newest[index] = max((n for part in numbers for replica in part for n in replica), default=0)
            if number is not None and number != current:
                opened = await asyncio.to_thread(self._open, index, number)
                self._served[index] = opened
                await self._get_to_know(opened)

    def _open(self, index: str, number: int) -> ServedVersion:
        manifest = read(self._storage, index, number)
        self._embedders(manifest.embedder)  # loaded before the first query needs it
        return ServedVersion(manifest, len(self._partitions), for_several(self._storage, manifest.template.file))

    async def _get_to_know(self, opened: ServedVersion) -> None:
        """Ask for the commonest terms, so that few queries have to; it answers meanwhile, and without them as well."""
        calls = {part: [opened.vocabulary_call()] for part in range(len(opened.parts))}
        found = await ask_all(self._partitions, lambda client: client.vocabulary, calls, _VOCABULARY_S)
        if len(found) == len(calls):
            await asyncio.to_thread(opened.know, [vocabulary for (vocabulary,) in found.values()])

    def default_embedder(self) -> EmbedderIdentity:
        """What made the default index; raises UnavailableError before a snapshot of it is open."""
        return self._version(next(iter(self._served))).manifest.embedder

    def describe(self) -> tuple[IndexDescription, ...]:
        """What is served now, the default index first."""
        return tuple(self._describe(index, served) for index, served in self._served.items())

    def _describe(self, index: str, served: ServedVersion | None) -> IndexDescription:
        newest = self._newest.get(index, 0)
        if served is None:
            nothing = Coverage(len(self._partitions), 0, 0.0, tuple(range(len(self._partitions))))
            return IndexDescription(index, None, newest or None, 0, 0, "", {}, nothing)
        manifest = served.manifest
        absent = [
            part
            for part, replicas in enumerate(self._held)
            if not any(served.version in replica for replica in replicas)
        ]
        return IndexDescription(
            name=index,
            snapshot=manifest.number,
            loading=newest if newest > manifest.number else None,
            documents=sum(shard.documents for shard in manifest.shards),
            chunks=sum(shard.rows for shard in manifest.shards),
            embedder=manifest.embedder.model,
            metadata=dict(manifest.metadata),
            coverage=served.coverage(absent),
        )

    async def search(self, calls: Sequence[SearchCall]) -> list[SearchReply | TandemError]:
        """A reply or an error for each call, in order; calls that are alike are searched together."""
        replies: list[SearchReply | TandemError | None] = [None] * len(calls)
        await self._start({call.index for call in calls}, max((call.budget_s for call in calls), default=0.0))
        groups, refused = grouped(calls, self._version)
        for position, error in refused.items():
            replies[position] = error
        timeout = min(self._partition_s, max((call.budget_s for call in calls), default=0.0))
        try:
            timings = await self._run(groups, timeout)
        except TandemError as error:
            return [error if reply is None else reply for reply in replies]
        for group in groups:
            for position, reply in group.replies(timings):
                replies[position] = reply
        missing = UnavailableError("the search was not finished; try again")
        return [missing if reply is None else reply for reply in replies]

    async def _start(self, indexes: Collection[str], budget_s: float) -> None:
        """Wait a little for a first version: whoever asks a replica that has just started gets hits, not an error."""
        until = min(self._created + _STARTS_S, time.monotonic() + budget_s)
        while (
            any(index in self._served and self._served[index] is None for index in indexes) and time.monotonic() < until
        ):
            await asyncio.sleep(_LOOK_S)

    def _version(self, index: str) -> ServedVersion:
        if index not in self._served:
            known = ", ".join(self._served)
            raise NotFoundError(f"index={index}: not served here; expected one of {known}")
        served = self._served[index]
        if served is None:
            raise UnavailableError(f"index={index}: no snapshot is open yet; try again in some seconds")
        return served

    async def _run(self, groups: Sequence[Group], timeout: float) -> dict[str, float]:
        timings: dict[str, float] = {}
        if not groups:
            return timings
        with _timed(timings, "retrieve"):
            with _timed(timings, "embed"):
                await asyncio.to_thread(self._embed, groups)
            with _timed(timings, "statistics"):
                await self._learn(groups, timeout)
            with _timed(timings, "candidates"):
                await self._find(groups, timeout)
            pending = groups
            while pending:
                with _timed(timings, "merge"):
                    await asyncio.gather(*(self._merge(group, timeout) for group in pending))
                with _timed(timings, "rows"):
                    pending = await self._read(pending, timeout)
        return timings

    def _embed(self, groups: Sequence[Group]) -> None:
        """One forward pass for all queries of the same embedder."""
        by_model: dict[EmbedderIdentity, list[Group]] = {}
        for group in groups:
            if group.config.mode == "lexical":
                group.embedded(None)
            else:
                by_model.setdefault(group.served.manifest.embedder, []).append(group)
        for identity, alike in by_model.items():
            embedder = self._embedders(identity)
            vectors = embedder.encode_queries([text for group in alike for text in group.texts])
            start = 0
            for group in alike:
                group.embedded(vectors[start : start + len(group.texts)])
                start += len(group.texts)

    async def _learn(self, groups: Sequence[Group], timeout: float) -> None:
        """Ask for the statistics that no query asked for before."""
        asking = [(group, call) for group in groups if (call := group.unknown()) is not None]
        replies = await self._ask_parts(
            [(group, dict.fromkeys(group.parts, call)) for group, call in asking],
            lambda client: client.statistics,
            timeout,
        )
        for (group, call), found in zip(asking, replies, strict=True):
            group.learn(call, found)

    async def _find(self, groups: Sequence[Group], timeout: float) -> None:
        asking = [(group, dict.fromkeys(group.parts, group.candidates_call())) for group in groups]
        replies = await self._ask_parts(asking, lambda client: client.candidates, timeout)
        for group, found in zip(groups, replies, strict=True):
            group.find(found)

    async def _merge(self, group: Group, timeout: float) -> None:
        """Rank what was found, without the partitions that are lost while ties are looked up."""
        if group.is_ranked:
            return
        loop = asyncio.get_running_loop()

        def keys(shards: Ints, rows: Ints) -> tuple[Sequence[str], Sequence[int]]:
            # Merging runs in a thread, and waits there for the few rows whose scores are equal.
            asked = asyncio.run_coroutine_threadsafe(self._keys(group.served, shards, rows, timeout), loop)
            return asked.result()

        while True:
            try:
                await asyncio.to_thread(group.merge, keys)
                return
            except LostError as lost:
                group.lose(lost.parts)

    async def _keys(
        self, served: ServedVersion, shards: Ints, rows: Ints, timeout: float
    ) -> tuple[list[str], list[int]]:
        places = served.places(shards)
        calls = {part: [served.rows_call(shards[own], rows[own])] for part, own in places.items()}
        found = await ask_all(self._partitions, lambda client: client.keys, calls, timeout)
        if lost := calls.keys() - found.keys():
            raise LostError(lost)
        doc_ids, ordinals = [""] * len(rows), [0] * len(rows)
        for part, own in places.items():
            for position, doc_id, ordinal in zip(own.tolist(), *found[part][0], strict=True):
                doc_ids[position], ordinals[position] = doc_id, ordinal
        return doc_ids, ordinals

    async def _read(self, groups: Sequence[Group], timeout: float) -> list[Group]:
        """Read the rows that are listed; returns the groups that lost a partition they need."""
        asking = [(group, group.rows_calls()) for group in groups]
        replies = await self._ask_parts(asking, lambda client: client.rows, timeout)
        again = []
        for (group, calls), found in zip(asking, replies, strict=True):
            if lost := calls.keys() - found.keys():
                group.lose(lost)
                again.append(group)
            else:
                group.read(calls, found)
        return again

    async def _ask_parts(
        self,
        asking: Sequence[tuple[Group, Mapping[int, C]]],
        method: Callable[[PartitionClient], Ask[C, R]],
        timeout: float,
    ) -> list[dict[int, R]]:
        """One call to each partition for all groups; for each group, the replies of the partitions that answered."""
        calls: dict[int, list[C]] = {}
        for _, own in asking:
            for part, call in own.items():
                calls.setdefault(part, []).append(call)
        found = await ask_all(self._partitions, method, calls, timeout)
        streams = {part: iter(replies) for part, replies in found.items()}
        return [{part: next(streams[part]) for part in own if part in streams} for _, own in asking]


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    timings[stage] = timings.get(stage, 0.0) + time.perf_counter() - started
