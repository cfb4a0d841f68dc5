"""Partitions in this process, as the retriever reaches them, with failures to order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from ray_jobs.storage import Storage
from serve.errors import DeadlineError, UnavailableError
from serve.partition import PartitionHost
from serve.partition_messages import Version


class LocalPartition:
    """A PartitionClient with hosts in threads; calls go to the replicas in turn."""

    def __init__(self, hosts: Sequence[PartitionHost]) -> None:
        self.hosts = list(hosts)
        self.broken: set[str] = set()  # methods that fail
        self.stuck: set[str] = set()  # methods that never answer
        self.calls: list[str] = []
        self._turn = 0

    async def statistics(self, calls: Sequence[Any], timeout_s: float) -> Any:
        return await self._call("statistics", calls, timeout_s)

    async def vocabulary(self, calls: Sequence[Any], timeout_s: float) -> Any:
        return await self._call("vocabulary", calls, timeout_s)

    async def candidates(self, calls: Sequence[Any], timeout_s: float) -> Any:
        return await self._call("candidates", calls, timeout_s)

    async def rows(self, calls: Sequence[Any], timeout_s: float) -> Any:
        return await self._call("rows", calls, timeout_s)

    async def keys(self, calls: Sequence[Any], timeout_s: float) -> Any:
        return await self._call("keys", calls, timeout_s)

    async def held(self, used: Sequence[Version], timeout_s: float) -> list[list[Version]]:
        if "held" in self.broken:
            raise UnavailableError("partition: no replica answers")
        return [host.held(used) for host in self.hosts]

    async def _call(self, method: str, calls: Sequence[Any], timeout_s: float) -> Any:
        self.calls.append(method)
        if method in self.stuck:
            await asyncio.sleep(timeout_s)
            raise DeadlineError(f"partition: {method} took more than {timeout_s} s")
        if method in self.broken:
            raise UnavailableError("partition: no replica answers")
        self._turn += 1
        host = self.hosts[self._turn % len(self.hosts)]
        return await asyncio.to_thread(getattr(host, method), calls)


def local_partitions(
    storage: Storage, indexes: Sequence[str], count: int, replicas: int = 1, drain_s: float = 30.0
) -> list[LocalPartition]:
    """`count` partitions of `replicas` hosts each; nothing is open yet."""
    return [
        LocalPartition([PartitionHost(storage, indexes, part, count, drain_s) for _ in range(replicas)])
        for part in range(count)
    ]


def follow_all(partitions: Sequence[LocalPartition]) -> None:
    """Let every host open what is live."""
    for partition in partitions:
        for host in partition.hosts:
            host.follow()
