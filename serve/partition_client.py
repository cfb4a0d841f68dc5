"""How the retriever reaches partitions: the protocol, and one question to all of them at once.

Guaranteed: `ask_all` ends within its timeout; a partition that does not answer, or does not hold the version in time,
is absent from what it returns. Not guaranteed: which replica answers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from ray_jobs.errors import TandemError
from ray_jobs.index.vocabulary import Vocabulary
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

_RETRY_S = 0.02  # before a partition that is still opening the version is asked again
_log = logging.getLogger("tandem.serve.retriever")

C = TypeVar("C")
R = TypeVar("R")
Ask: TypeAlias = Callable[[Sequence[C], float], Awaitable[Sequence[R | Missing]]]


class PartitionClient(Protocol):
    """One partition, wherever its replicas run; methods as PartitionHost's.

    Every call ends within its timeout, and raises a TandemError when no replica answers.
    """

    async def statistics(self, calls: Sequence[StatisticsCall], timeout_s: float) -> Sequence[PartStatistics | Missing]:
        """The partition's part in the statistics of the whole."""
        ...

    async def vocabulary(self, calls: Sequence[VocabularyCall], timeout_s: float) -> Sequence[Vocabulary | Missing]:
        """The partition's commonest terms."""
        ...

    async def candidates(self, calls: Sequence[CandidatesCall], timeout_s: float) -> Sequence[Found | Missing]:
        """What the partition proposes."""
        ...

    async def rows(self, calls: Sequence[RowsCall], timeout_s: float) -> Sequence[list[Mapping[str, Any]] | Missing]:
        """The stored rows."""
        ...

    async def keys(
        self, calls: Sequence[RowsCall], timeout_s: float
    ) -> Sequence[tuple[list[str], list[int]] | Missing]:
        """doc_id and ordinal of rows."""
        ...

    async def held(self, used: Sequence[Version], timeout_s: float) -> list[list[Version]]:
        """The versions that each running replica has open."""
        ...


async def ask_all(
    clients: Sequence[PartitionClient],
    method: Callable[[PartitionClient], Ask[C, R]],
    calls: Mapping[int, Sequence[C]],
    timeout_s: float,
) -> dict[int, list[R]]:
    """The replies of each partition that answered every one of its `calls`, by its number; all are asked at once."""
    wanted = {part: own for part, own in calls.items() if own}
    replies = await asyncio.gather(*(_ask(part, method(clients[part]), own, timeout_s) for part, own in wanted.items()))
    return {part: reply for part, reply in zip(wanted, replies, strict=True) if reply is not None}


async def _ask(
    part: int,
    method: Ask[C, R],
    calls: Sequence[C],
    timeout_s: float,
) -> list[R] | None:
    until = time.monotonic() + timeout_s
    while (left := until - time.monotonic()) > 0:
        try:
            replies = await method(calls, left)
        except TandemError as error:
            _log.warning("partition %d does not answer: %s", part, error)
            return None
        found = [reply for reply in replies if not isinstance(reply, Missing)]
        if len(found) == len(calls):
            return found
        await asyncio.sleep(min(_RETRY_S, left))
    _log.warning("partition %d does not hold the version that is asked for", part)
    return None
