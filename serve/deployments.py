"""The plain classes as Ray Serve deployments: construct, run blocking work in threads, batch, follow the store.

Guaranteed: nothing here decides anything about a search or an answer. An error of Tandem's is returned as a value, not
raised, so that Ray neither wraps nor logs it. Once a replica has started, its event loop never waits for FAISS or a
model.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

from ray_jobs.answer.protocol import Final
from ray_jobs.errors import TandemError
from ray_jobs.index.manifest import read_live
from ray_jobs.storage import open_storage
from serve.batcher import Batcher
from serve.config import ServeConfig
from serve.embedders import Embedders, embed
from serve.handles import Bulks, PartitionHandle, ServeBackend
from serve.messages import (
    CondenseCall,
    EmbedCall,
    EmbedReply,
    GenerateCall,
    GeneratorDescription,
    RerankCall,
    RerankReply,
    RetrieverDescription,
    SearchCall,
    SearchReply,
)
from serve.metrics import GeneratorMetrics, RerankerMetrics, RetrieverMetrics
from serve.partition import PartitionHost
from serve.partition_messages import CandidatesCall, RowsCall, StatisticsCall, Version, VocabularyCall
from serve.retriever import Retriever
from serve.shared_limits import SharedBuckets

_CONCURRENT_BATCHES = 2  # one is searched while the next is embedded
_RERANK_TOKENS = 16_384  # scored in one pass at most
_log = logging.getLogger("tandem.serve")

T = TypeVar("T")


class PartitionDeployment:
    """`Partition-<p>`: shards, mapped and searched."""

    def __init__(self, config: ServeConfig, position: int, count: int) -> None:
        _log_through_serve()
        drain_s = 2 * config.api.deadline_s
        self._host = PartitionHost(open_storage(config.store), config.index, position, count, drain_s)
        self._host.follow()
        self._following = asyncio.create_task(_repeat(self._follow, config.poll_s))

    async def _follow(self) -> None:
        await asyncio.to_thread(self._host.follow)

    async def statistics(self, calls: Sequence[StatisticsCall]) -> Any:
        """As PartitionHost.statistics."""
        return await _answer(asyncio.to_thread(self._host.statistics, calls))

    async def vocabulary(self, calls: Sequence[VocabularyCall]) -> Any:
        """As PartitionHost.vocabulary."""
        return await _answer(asyncio.to_thread(self._host.vocabulary, calls))

    async def candidates(self, calls: Sequence[CandidatesCall]) -> Any:
        """As PartitionHost.candidates."""
        return await _answer(asyncio.to_thread(self._host.candidates, calls))

    async def rows(self, calls: Sequence[RowsCall]) -> Any:
        """As PartitionHost.rows."""
        return await _answer(asyncio.to_thread(self._host.rows, calls))

    async def keys(self, calls: Sequence[RowsCall]) -> Any:
        """As PartitionHost.keys."""
        return await _answer(asyncio.to_thread(self._host.keys, calls))

    async def held(self, used: Sequence[Version]) -> list[Version]:
        """As PartitionHost.held."""
        return self._host.held(used)


class RetrieverDeployment:
    """`Retriever`: embeds, asks the partitions, merges."""

    def __init__(self, config: ServeConfig, partitions: Sequence[Any]) -> None:
        _log_through_serve()
        storage = open_storage(config.store)
        self._embedders = Embedders(config.embedder, storage)
        clients = [PartitionHandle(handle) for handle in partitions]
        self._retriever = Retriever(storage, config.index, self._embedders, clients, config.partition_s)

        metrics = RetrieverMetrics()

        async def search(bulks: list[Sequence[SearchCall]]) -> list[list[SearchReply | TandemError]]:
            replies = await self._retriever.search([call for bulk in bulks for call in bulk])
            metrics.searched(replies)
            following = iter(replies)
            return [[next(following) for _ in bulk] for bulk in bulks]

        self._search = Batcher(search, config.batch, _CONCURRENT_BATCHES, weigh=len)
        self._following = asyncio.create_task(_repeat(self._retriever.follow, config.poll_s / 2))

    async def search(self, calls: Sequence[SearchCall]) -> list[SearchReply | TandemError]:
        """A reply to each query; searched together with those that come at the same time."""
        return await self._search(calls)

    async def embed(self, call: EmbedCall) -> EmbedReply | TandemError:
        """Vectors by the embedder of the default index."""
        return await _answer(self._embed(call))

    async def _embed(self, call: EmbedCall) -> EmbedReply:
        identity = self._retriever.default_embedder()
        return await asyncio.to_thread(lambda: embed(self._embedders(identity), call))

    async def describe(self) -> RetrieverDescription:
        """What is served now."""
        indexes = self._retriever.describe()
        return RetrieverDescription(indexes, indexes[0].embedder)


class RerankerDeployment:
    """`Reranker`: one cross-encoder, a token budget a batch."""

    def __init__(self, config: ServeConfig) -> None:
        from ray_jobs.models.reranker import Reranker
        from serve.reranker import RerankerHost, tokens_of

        _log_through_serve()
        assert config.reranker is not None
        host = RerankerHost(Reranker.load(config.reranker, open_storage(config.store)))
        self._name = host.model
        metrics = RerankerMetrics()

        async def scores(calls: list[RerankCall]) -> list[RerankReply | TandemError]:
            started = time.perf_counter()
            replies = await host.scores(calls)
            metrics.reranked(time.perf_counter() - started)
            return replies

        self._scores = Batcher(scores, _RERANK_TOKENS, weigh=tokens_of)

    async def scores(self, call: RerankCall) -> RerankReply | TandemError:
        """A score for each text."""
        return await self._scores(call)

    async def describe(self) -> str:
        """The name of the model."""
        return self._name


class GeneratorDeployment:
    """`Generator`: one engine, many answers at once."""

    def __init__(self, config: ServeConfig) -> None:
        from ray_jobs.answer.engine_config import load_engine
        from serve.generator import GeneratorHost

        _log_through_serve()
        storage = open_storage(config.store)
        identity = read_live(storage, config.index[0]).embedder
        engine = load_engine(config.generator, lambda: Embedders(config.embedder, storage)(identity), storage)
        self._host = GeneratorHost(engine)
        self._metrics = GeneratorMetrics()

    async def stream(self, call: GenerateCall) -> AsyncIterator[Any]:
        """The events of an answer."""
        started = time.perf_counter()
        silent = True
        try:
            async for event in self._host.stream(call):
                if silent:
                    self._metrics.first_event(time.perf_counter() - started)
                    silent = False
                if isinstance(event, Final):
                    self._metrics.answered(call.request.model, event.answer, time.perf_counter() - started)
                yield event
        except TandemError as error:
            yield error

    async def whole(self, call: GenerateCall) -> list[Any] | TandemError:
        """The events of an answer, once it is finished."""
        found = [event async for event in self.stream(call)]
        return found[-1] if found and isinstance(found[-1], TandemError) else found

    async def condense(self, call: CondenseCall) -> str | TandemError:
        """The last question of a conversation, understandable on its own."""
        return await _answer(self._host.condense(call))

    async def describe(self) -> GeneratorDescription:
        """The models and what they need."""
        return GeneratorDescription(tuple(self._host.models()), self._host.needs_passages())


class GatewayDeployment:
    """`Gateway`: the HTTP API; holds no model."""

    def __init__(self, config: ServeConfig, bulks: Bulks, retriever: Any, generator: Any, reranker: Any | None) -> None:
        _log_through_serve()
        self._config = config
        self._backend = ServeBackend(retriever, generator, reranker, config.application, bulks)

    def __serve_build_asgi_app__(self) -> Any:
        """The application that Ray Serve's proxies talk to."""
        from serve.api.app import make_app

        return make_app(self._backend, self._config.api, SharedBuckets(self._config.api.tenants))


def _log_through_serve() -> None:
    """Let Tandem's loggers write where Ray Serve's do: the replica's log file."""
    ours = logging.getLogger("tandem")
    ours.setLevel(logging.INFO)
    ours.handlers = list(logging.getLogger("ray.serve").handlers)


async def _answer(work: Awaitable[T]) -> T | TandemError:
    try:
        return await work
    except TandemError as error:
        return error


async def _repeat(work: Callable[[], Awaitable[None]], pause_s: float) -> None:
    """Run `work` over and over; what fails is logged, and tried again."""
    while True:
        try:
            await work()
        except TandemError as error:
            _log.warning("%s", error)
        except Exception:
            # A defect, but one that must not end the following of snapshots.
            _log.exception("following failed")
        await asyncio.sleep(pause_s)
