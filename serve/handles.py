"""The seams of the plain classes, over Ray Serve: partitions for the retriever, the backend for the API.

Guaranteed: every call has a deadline (see `calls`). Not guaranteed: which replica answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray_jobs.answer.protocol import AnswerEvent
from ray_jobs.errors import NotFoundError, TandemError
from ray_jobs.index.vocabulary import Vocabulary
from serve.batcher import Batcher
from serve.calls import call, events, everywhere
from serve.errors import DeadlineError
from serve.messages import (
    CondenseCall,
    DeploymentDescription,
    Description,
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
from serve.partition_messages import (
    CandidatesCall,
    Found,
    Missing,
    PartStatistics,
    RowsCall,
    StatisticsCall,
    Version,
    VocabularyCall,
)

_DESCRIBE_S = 2.0  # time for one deployment to describe itself
_DESCRIBED_FOR_S = 1.0


class PartitionHandle:
    """A PartitionClient over the replicas of one partition."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def statistics(self, calls: Sequence[StatisticsCall], timeout_s: float) -> list[PartStatistics | Missing]:
        """As PartitionHost.statistics, of any replica."""
        found: list[PartStatistics | Missing] = await call(self._handle, "statistics", calls, timeout_s=timeout_s)
        return found

    async def vocabulary(self, calls: Sequence[VocabularyCall], timeout_s: float) -> list[Vocabulary | Missing]:
        """As PartitionHost.vocabulary, of any replica."""
        found: list[Vocabulary | Missing] = await call(self._handle, "vocabulary", calls, timeout_s=timeout_s)
        return found

    async def candidates(self, calls: Sequence[CandidatesCall], timeout_s: float) -> list[Found | Missing]:
        """As PartitionHost.candidates, of any replica."""
        found: list[Found | Missing] = await call(self._handle, "candidates", calls, timeout_s=timeout_s)
        return found

    async def rows(self, calls: Sequence[RowsCall], timeout_s: float) -> list[list[Mapping[str, Any]] | Missing]:
        """As PartitionHost.rows, of any replica."""
        found: list[list[Mapping[str, Any]] | Missing] = await call(self._handle, "rows", calls, timeout_s=timeout_s)
        return found

    async def keys(self, calls: Sequence[RowsCall], timeout_s: float) -> list[tuple[list[str], list[int]] | Missing]:
        """As PartitionHost.keys, of any replica."""
        found: list[tuple[list[str], list[int]] | Missing] = await call(
            self._handle, "keys", calls, timeout_s=timeout_s
        )
        return found

    async def held(self, used: Sequence[Version], timeout_s: float) -> list[list[Version]]:
        """The versions that each running replica has open."""
        return await everywhere(self._handle, "held", used, timeout_s=timeout_s)


@dataclass(frozen=True)
class Bulks:
    """How searches that come at the same time travel together."""

    queries: int  # in one call to the retriever at most
    concurrent: int  # calls to the retriever at a time


class ServeBackend:
    """The Backend over deployment handles.

    A call between deployments costs more than a search in it: what waits while others are under way goes in one.
    """

    def __init__(self, retriever: Any, generator: Any, reranker: Any | None, application: str, bulks: Bulks) -> None:
        self._retriever = retriever
        self._searches = Batcher(self._search_many, bulks.queries, bulks.concurrent)
        self._generator = generator
        self._reranker = reranker
        self._application = application
        self._described: tuple[float, Description] | None = None

    async def search(self, request: SearchCall) -> SearchReply:
        """The hits of one query."""
        try:
            reply = await asyncio.wait_for(self._searches(request), request.budget_s)
        except TimeoutError:
            raise DeadlineError(f"search: no answer within {request.budget_s:.2f} s") from None
        if isinstance(reply, TandemError):
            raise reply
        return reply

    async def _search_many(self, requests: list[SearchCall]) -> list[SearchReply | TandemError]:
        budget = max(request.budget_s for request in requests)
        replies: list[SearchReply | TandemError] = await call(self._retriever, "search", requests, timeout_s=budget)
        return replies

    async def rerank(self, request: RerankCall) -> RerankReply:
        """Scores of texts; raises NotFoundError when no reranker is deployed."""
        if self._reranker is None:
            raise NotFoundError("rerank: no reranker is deployed; set 'reranker' in the server's configuration")
        reply: RerankReply = await call(self._reranker, "scores", request, timeout_s=request.budget_s)
        return reply

    async def embed(self, request: EmbedCall) -> EmbedReply:
        """Vectors of texts."""
        reply: EmbedReply = await call(self._retriever, "embed", request, timeout_s=request.budget_s)
        return reply

    async def condense(self, request: CondenseCall) -> str:
        """The last question of a conversation, understandable without the turns before it."""
        question: str = await call(self._generator, "condense", request, timeout_s=request.budget_s)
        return question

    def generate(self, request: GenerateCall) -> AsyncGenerator[AnswerEvent, None]:
        """The events of an answer as they come, of a whole answer together; the last one is Final."""
        if request.whole:
            return self._together(request)
        return events(self._generator, "stream", request, timeout_s=request.budget_s)

    async def _together(self, request: GenerateCall) -> AsyncGenerator[AnswerEvent, None]:
        for event in await call(self._generator, "whole", request, timeout_s=request.budget_s):
            yield event

    async def describe(self) -> Description:
        """What is served now, at most a second old."""
        if self._described is None or time.monotonic() - self._described[0] > _DESCRIBED_FOR_S:
            self._described = (time.monotonic(), await self._describe())
        return self._described[1]

    async def _describe(self) -> Description:
        retriever, generator, reranker, deployments = await asyncio.gather(
            _described(self._retriever, RetrieverDescription()),
            _described(self._generator, GeneratorDescription()),
            _described(self._reranker, None),
            asyncio.to_thread(deployments_of, self._application),
        )
        return Description(
            indexes=retriever.indexes,
            embedder=retriever.embedder,
            generators=generator.models,
            needs_passages=generator.needs_passages,
            reranker=reranker,
            deployments=deployments,
        )


async def _described(handle: Any | None, unknown: Any) -> Any:
    if handle is None:
        return unknown
    try:
        return await call(handle, "describe", timeout_s=_DESCRIBE_S)
    except TandemError:
        return unknown


def deployments_of(application: str) -> tuple[DeploymentDescription, ...]:
    """The deployments of an application as Ray Serve's controller sees them; empty when it does not answer."""
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    try:
        status = serve.status().applications.get(application)
    except (RayError, RayServeException):
        return ()
    if status is None:
        return ()
    return tuple(
        DeploymentDescription(
            name=name,
            status=str(item.status.value),
            replicas=item.replica_states.get("RUNNING", 0),
            wanted=sum(item.replica_states.values()),
        )
        for name, item in sorted(status.deployments.items())
    )
