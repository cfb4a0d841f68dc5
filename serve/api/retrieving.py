"""Search, then rerank if asked for.

Guaranteed: hits come from one snapshot of which at least `min_coverage` was searched; when reranking fails or takes
too long they keep the order of retrieval, and `degraded` says so. Not guaranteed: scores that compare across the two
orders; each hit's `scores` has them by stage.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ray_jobs.answer.defaults import rerank_weight
from ray_jobs.errors import ModelError, NotFoundError, TandemError, UsageError
from ray_jobs.index.hits import Hit
from ray_jobs.index.reranking import cut, passage, reranked, wider
from ray_jobs.index.search import SearchConfig
from serve.api.config import RerankConfig
from serve.api.deadline import Deadline
from serve.api.errors import FieldError, UnknownError
from serve.api.frames import frames_of
from serve.api.retrieval import Retrieval
from serve.backend import Backend
from serve.errors import UnavailableError
from serve.messages import RerankCall, RerankReply, SearchCall, SearchReply

_log = logging.getLogger("tandem.serve.api")


@dataclass(frozen=True)
class Found:
    """What was retrieved, best first."""

    hits: tuple[Hit, ...]
    reply: SearchReply  # of the search alone
    degraded: tuple[str, ...]  # what was left out: "partition", "rerank"
    timings: dict[str, float]  # seconds a stage


class Retrieving:
    """Retrieves over a backend."""

    def __init__(self, backend: Backend, rerank: RerankConfig) -> None:
        self._backend = backend
        self._rerank = rerank

    async def find(self, text: str, wanted: Retrieval, deadline: Deadline, for_reader: bool = False) -> Found:
        """The hits for `text`; `for_reader` also asks for the statistics that a reader needs.

        Raises UnavailableError when too little of the index was searched, DeadlineError, FieldError for a filter that
        does not fit the index or a reranker that is not deployed.
        """
        started = time.perf_counter()
        reply = await self._search(text, wanted, deadline, for_reader)
        timings = {**reply.timings, "retrieve": time.perf_counter() - started}
        _check_coverage(reply, wanted)
        degraded = ["partition"] if reply.coverage.degraded else []
        hits = reply.hits
        if wanted.rerank:
            started = time.perf_counter()
            hits, done = await self._reranked_or_not(text, hits, wanted, deadline)
            timings["rerank"] = time.perf_counter() - started
            if not done:
                degraded.append("rerank")
        return Found(hits, reply, tuple(degraded), timings)

    async def _search(self, text: str, wanted: Retrieval, deadline: Deadline, for_reader: bool) -> SearchReply:
        config = wider(wanted.config, self._rerank.depth) if wanted.rerank else wanted.config
        try:
            async with deadline.bound("the index was searched"):
                return await self._backend.search(SearchCall(wanted.index, text, config, deadline.left(), for_reader))
        except NotFoundError:
            # The backend's message lists every index, and not every tenant may see them all.
            raise UnknownError(f"index={wanted.index}: it is not served any more", "index") from None
        except UsageError as error:
            raise FieldError(str(error), wanted.where_param) from error

    async def _reranked_or_not(
        self, text: str, hits: tuple[Hit, ...], wanted: Retrieval, deadline: Deadline
    ) -> tuple[tuple[Hit, ...], bool]:
        """The hits, and whether they are in the reranker's order; if they are not, in that of retrieval."""
        try:
            return await self._reranked(text, hits, wanted.config, deadline), True
        except NotFoundError as error:
            if wanted.rerank_param is not None:
                raise FieldError(f"{wanted.rerank_param}=true: {error}", wanted.rerank_param) from None
        except (TandemError, TimeoutError) as error:
            _log.warning("not reranked: %s", type(error).__name__)
        except Exception as error:  # a defect, and still the order of retrieval is an answer
            _log.error("not reranked: %s", frames_of(error))
        return tuple(cut(hits, wanted.config)), False

    async def _reranked(
        self, text: str, hits: Sequence[Hit], config: SearchConfig, deadline: Deadline
    ) -> tuple[Hit, ...]:
        """The hits that `config` asks for, in the order that the reranker's scores give them."""
        if not hits:
            return ()
        # Half of what is left: an answer has to be made as well.
        budget = min(self._rerank.timeout_s, deadline.left() / 2)
        async with asyncio.timeout(budget):
            reply = await self._backend.rerank(RerankCall(text, tuple(map(passage, hits)), budget))
        return tuple(reranked(hits, reply.scores, config, rerank_weight(reply.model, self._rerank.weight)))


def check_scores(reply: RerankReply, texts: int) -> None:
    """Raise ModelError unless there is a number for each text."""
    if len(reply.scores) != texts or any(math.isnan(score) for score in reply.scores):
        raise ModelError(f"reranker {reply.model}: expected {texts} scores, all numbers; use another model")


def _check_coverage(reply: SearchReply, wanted: Retrieval) -> None:
    coverage = reply.coverage
    if coverage.documents < wanted.min_coverage:
        raise UnavailableError(
            f"index={reply.index}: only {coverage.documents:.4g} of its documents could be searched, "
            f"min_coverage={wanted.min_coverage:g}: try again, or ask for less"
        )
