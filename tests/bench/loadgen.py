"""Load on a server over HTTP: a fixed number of callers, or a fixed rate of requests, in a process of its own.

    python tests/bench/loadgen.py http://127.0.0.1:8000/v1/search --bodies bodies.json --callers 16 --seconds 10

Closed loop (`callers`): each caller asks again as soon as it has its answer. Open loop (`rate`): requests come at times
of their own, whatever becomes of those before; that is how load looks that exceeds what a server can do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import aiohttp

TIMEOUT_S = 30.0
Body = Callable[[int], dict[str, Any]]
Encoded = Callable[[int], bytes]


@dataclass
class Measured:
    """What one run of load gave."""

    callers: int  # 0: open loop
    rate: float  # requests a second that were sent
    seconds: float
    ok: int = 0
    refused: int = 0  # 429 and 503
    failed: int = 0
    latencies: list[float] = field(default_factory=list)  # of those that were answered, seconds
    stages: dict[str, list[float]] = field(default_factory=dict)  # milliseconds, as the server says

    @property
    def goodput(self) -> float:
        """Answers a second."""
        return self.ok / self.seconds

    def quantile(self, share: float) -> float:
        """Latency in milliseconds below which `share` of the answers came."""
        if not self.latencies:
            return float("nan")
        ordered = sorted(self.latencies)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def bottleneck(self) -> str:
        """The stage that took longest in the median."""
        medians = {
            stage: statistics.median(values)
            for stage, values in self.stages.items()
            if stage not in ("total", "retrieve", "first_token")
        }
        return max(medians, key=lambda stage: medians[stage]) if medians else ""


async def closed(url: str, headers: dict[str, str], body: Encoded, callers: int, seconds: float) -> Measured:
    """`callers` that each ask one request after the other."""
    measured = Measured(callers, 0.0, seconds)
    until = time.perf_counter() + seconds
    numbers = iter(range(1 << 62))

    async def ask_on(session: aiohttp.ClientSession) -> None:
        while time.perf_counter() < until:
            await _ask(session, url, body(next(numbers)), measured)

    async with _session(headers, callers) as session:
        started = time.perf_counter()
        await asyncio.gather(*(ask_on(session) for _ in range(callers)))
        measured.seconds = time.perf_counter() - started
    measured.rate = (measured.ok + measured.refused + measured.failed) / measured.seconds
    return measured


async def opened(url: str, headers: dict[str, str], body: Encoded, rate: float, seconds: float) -> Measured:
    """Requests at random times, `rate` a second on average."""
    measured = Measured(0, rate, seconds)
    chance = random.Random(0)
    async with _session(headers, 0) as session:
        started = time.perf_counter()
        due, asked = 0.0, []
        while due < seconds:
            await asyncio.sleep(max(0.0, started + due - time.perf_counter()))
            asked.append(asyncio.create_task(_ask(session, url, body(len(asked)), measured)))
            due += chance.expovariate(rate)
        await asyncio.gather(*asked)
        measured.seconds = time.perf_counter() - started
    return measured


def _session(headers: dict[str, str], connections: int) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        headers=headers,
        connector=aiohttp.TCPConnector(limit=connections),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
    )


async def _ask(session: aiohttp.ClientSession, url: str, body: bytes, measured: Measured) -> None:
    started = time.perf_counter()
    try:
        async with session.post(url, data=body) as response:
            status = response.status
            read = await response.read()
            # The load shares the server's CPUs: what is refused is not parsed.
            reply = json.loads(read) if status == 200 else None
    except (aiohttp.ClientError, TimeoutError, json.JSONDecodeError):
        measured.failed += 1
        return
    if status == 200:
        measured.ok += 1
        measured.latencies.append(time.perf_counter() - started)
        for stage, milliseconds in (reply.get("timings") or {} if isinstance(reply, dict) else {}).items():
            measured.stages.setdefault(stage, []).append(milliseconds)
    elif status in (429, 503):
        measured.refused += 1
    else:
        measured.failed += 1


def search_body(questions: Sequence[str]) -> Body:
    """Bodies of POST /v1/search."""
    return lambda number: {"query": questions[number % len(questions)], "k": 10}


def chat_body(questions: Sequence[str]) -> Body:
    """Bodies of POST /v1/chat/completions."""
    return lambda number: {
        "model": "extractive",
        "messages": [{"role": "user", "content": questions[number % len(questions)]}],
    }


def main() -> int:
    """Send load to a URL and print what came of it as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("url")
    parser.add_argument("--bodies", required=True, help="JSON file with a list of request bodies, taken in turn")
    parser.add_argument("--key", default="")
    parser.add_argument("--callers", type=int, default=1)
    parser.add_argument("--rate", type=float, help="requests a second at random times, in place of callers")
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    with open(options.bodies, encoding="utf-8") as file:
        bodies = [json.dumps(body).encode() for body in json.load(file)]
    headers = {"Content-Type": "application/json"}
    if options.key:
        headers["Authorization"] = f"Bearer {options.key}"

    def body(number: int) -> bytes:
        return bodies[number % len(bodies)]

    if options.rate:
        run = opened(options.url, headers, body, options.rate, options.seconds)
    else:
        run = closed(options.url, headers, body, options.callers, options.seconds)
    print(json.dumps(asdict(asyncio.run(run))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
