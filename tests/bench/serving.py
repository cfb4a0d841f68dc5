"""How fast is the server: what its hops cost, what it does at saturation and beyond, and what else does.

Every server holds the same chunks of SQuAD v1 dev and answers its questions, with the load from a process of its own on
the same CPUs; one server runs at a time, in rounds in which every one has its turn. Not measured: several machines.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import loadgen
import servers
from corpora import CACHE, squad, write_parquet
from loadgen import Body, Measured
from servers import Address
from table import Cell, Table

SEARCH, CHAT = "/v1/search", "/v1/chat/completions"
Start = Callable[[], AbstractContextManager[Address]]


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    questions: int
    callers: tuple[int, ...]
    seconds: float
    rounds: int
    single: int  # questions one after the other


FULL = Size(questions=500, callers=(1, 8, 32, 64), seconds=5.0, rounds=3, single=100)
QUICK = Size(questions=20, callers=(1, 8), seconds=1.0, rounds=1, single=5)


@dataclass
class Peer:
    """One server and what was measured of it."""

    name: str
    start: Start
    path: str
    body: Callable[[Sequence[str]], Body]
    alone: list[float] = field(default_factory=list)  # medians of one caller, milliseconds
    sweeps: list[list[Measured]] = field(default_factory=list)

    def peak(self) -> list[float]:
        """The best goodput of each round."""
        return [max(run.goodput for run in sweep) for sweep in self.sweeps]


def measure(quick: bool) -> list[Table]:
    """Run every part."""
    size = QUICK if quick else FULL
    store = _store()
    questions = [question.text for question in squad("squad_v1_dev", "SQuAD v1 dev").questions][: size.questions]
    direct = _direct(store, questions[: size.single])
    hops = _hops(store, questions, direct, size)
    saturation, tandem = _saturation(store, questions, size)
    overload = _overload(store, questions, size)
    return [
        hops,
        saturation,
        _profile(tandem),
        overload,
        _first_token(store, questions, size),
        _partitions(store, questions, size),
    ]


def _store() -> Path:
    """The index that every server serves, made by the ingest job, once."""
    store = CACHE / "serving-store"
    if not (store / "indexes" / servers.INDEX).exists():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "squad.parquet"
            write_parquet(squad("squad_v1_dev", "SQuAD v1 dev").passages, path)
            command = [sys.executable, "-m", "cluster.cli", "ingest", str(path), "--index", servers.INDEX]
            subprocess.run(
                [*command, "--store", str(store), "--shards", "4"],
                check=True,
                env={**os.environ, "PYTHONPATH": str(servers.ROOT)},
                stdout=subprocess.DEVNULL,
            )
    return store


def _direct(store: Path, questions: Sequence[str]) -> dict[str, float]:
    """Median milliseconds of the same calls in this process, without a server."""
    from ray_jobs.answer.asking import ask, extractive_reader
    from ray_jobs.index.search import SearchConfig
    from ray_jobs.index.snapshot import Snapshot
    from ray_jobs.models.for_queries import load_for_queries
    from ray_jobs.storage import open_storage

    snapshot = Snapshot.open(open_storage(str(store)), servers.INDEX)
    embedder = load_for_queries(None, snapshot.manifest.embedder)
    reader = extractive_reader(snapshot, embedder)

    def median(work: Callable[[str], object]) -> float:
        work(questions[0])
        return 1000 * statistics.median(_seconds(lambda: work(question)) for question in questions)  # noqa: B023

    return {
        SEARCH: median(lambda text: snapshot.search([text], SearchConfig(k=10), embedder)),
        CHAT: median(lambda text: ask(snapshot, text, SearchConfig(k=8, by="chunk"), embedder, reader)),
    }


def _hops(store: Path, questions: Sequence[str], direct: dict[str, float], size: Size) -> Table:
    peers = [
        Peer(name, start, SEARCH, loadgen.search_body)
        for name, start in (
            ("no-op chain, Ray Serve as it comes", lambda: servers.noop(2, fast=False)),
            ("no-op chain, transports of `tandem serve`", lambda: servers.noop(2, fast=True)),
            ("search, two partitions", lambda: servers.tandem(store, "--partitions", "2")),
        )
    ]
    for _ in range(size.rounds):
        for peer in peers:
            with peer.start() as address:
                _run(address, peer, questions, 1, size.seconds / 4)
                peer.alone.append(_run(address, peer, questions, 1, size.seconds).quantile(0.5))
    *noops, search = peers
    over = [own - direct[SEARCH] for own in search.alone]
    rows: list[list[Cell]] = [["the same search in one process, no server", f"{direct[SEARCH]:.1f}", "", ""]]
    for noop in noops:
        ratios = [a / b for a, b in zip(over, noop.alone, strict=True)]
        rows.append([noop.name, f"{statistics.median(noop.alone):.1f}", "", _spread(ratios)])
    rows.append([search.name, f"{statistics.median(search.alone):.1f}", f"{statistics.median(over):.1f}", ""])
    columns = [
        "one caller",
        "p50 (ms)",
        "above the process (ms)",
        "what the search has above the process, in this chain (least to most)",
    ]
    notes = (
        "A no-op chain: ingress, retriever, two partitions, and those once more. It passes nothing.",
        "The search asks its partitions once, and passes vectors and text. Its own work is slower between hops than in "
        "one process, where nothing drives it out of the caches.",
    )
    return Table("What the hops cost", columns, rows, notes)


def _saturation(store: Path, questions: Sequence[str], size: Size) -> tuple[Table, Peer]:
    def haystack_body(asked: Sequence[str]) -> Body:
        return lambda number: {"query": asked[number % len(asked)]}

    tandem = Peer("Tandem", lambda: servers.tandem(store), SEARCH, loadgen.search_body)
    peers = [
        tandem,
        Peer(
            "FastAPI, one process, the same models and index",
            lambda: servers.fastapi(store),
            SEARCH,
            loadgen.search_body,
        ),
        Peer("Haystack behind hayhooks, hybrid", lambda: servers.haystack(store), "/squad/run", haystack_body),
        Peer("Tandem: cited answers", lambda: servers.tandem(store), CHAT, loadgen.chat_body),
        Peer("FastAPI: cited answers", lambda: servers.fastapi(store), CHAT, loadgen.chat_body),
    ]
    for _ in range(size.rounds):
        for peer in peers:
            with peer.start() as address:
                _run(address, peer, questions, 1, size.seconds / 4)
                peer.sweeps.append([_run(address, peer, questions, callers, size.seconds) for callers in size.callers])
    rows: list[list[Cell]] = []
    for peer in peers:
        own = peers[0] if peer.path != CHAT else peers[3]
        ratios = [a / b for a, b in zip(own.peak(), peer.peak(), strict=True)]
        best = max(peer.sweeps[-1], key=lambda run: run.goodput)
        rows.append(
            [
                peer.name,
                f"{statistics.median(peer.peak()):.1f}",
                "" if peer is own else _spread(ratios),
                f"{statistics.median(sweep[0].quantile(0.5) for sweep in peer.sweeps):.1f}",
                best.callers,
                f"{best.quantile(0.5):.0f}",
                f"{best.quantile(0.95):.0f}",
            ]
        )
    columns = [
        f"{os.cpu_count()} CPUs, load included",
        "answers/s at saturation",
        "Tandem does more by",
        "one caller: p50 (ms)",
        "callers at saturation",
        "there: p50 (ms)",
        "p95 (ms)",
    ]
    note = "Answers: Tandem remembers the vectors of sentences it has read; several questions come to each passage."
    return Table("At saturation", columns, rows, (note,)), tandem


def _profile(tandem: Peer) -> Table:
    rows: list[list[Cell]] = []
    for run in tandem.sweeps[-1]:
        stages = {stage: statistics.median(values) for stage, values in run.stages.items()}
        shown = [f"{stages.get(stage, 0.0):.1f}" for stage in ("embed", "candidates", "merge", "rows", "total")]
        rows.append(
            [
                run.callers,
                f"{run.goodput:.1f}",
                f"{run.quantile(0.5):.1f}",
                f"{run.quantile(0.95):.1f}",
                *shown,
                run.bottleneck(),
            ]
        )
    columns = [
        "callers",
        "searches/s",
        "p50 (ms)",
        "p95 (ms)",
        "embed",
        "candidates",
        "merge",
        "rows",
        "total",
        "bottleneck",
    ]
    return Table(
        "Where the time of a search goes, as load grows", columns, rows, ("Stages: medians in ms, as the server says.",)
    )


def _overload(store: Path, questions: Sequence[str], size: Size) -> Table:
    rows: list[list[Cell]] = []
    with servers.tandem(store) as address:
        peer = Peer("", lambda: servers.tandem(store), SEARCH, loadgen.search_body)
        _run(address, peer, questions, 8, size.seconds / 2)
        # Of this very server in these very minutes: machines are noisy.
        peak = max(_run(address, peer, questions, callers, size.seconds).goodput for callers in size.callers)
        for factor in (0.5, 1.0, 2.0):
            rate = factor * peak
            run = _load(address, peer, questions, "--rate", str(rate), "--seconds", str(2 * size.seconds))
            rows.append(
                [
                    f"{factor:g} x",
                    f"{rate:.0f}",
                    f"{run.goodput:.1f}",
                    f"{run.goodput / peak:.2f}",
                    run.refused,
                    run.failed,
                    f"{run.quantile(0.95):.0f}",
                ]
            )
    columns = ["load", "requests/s sent", "answers/s", "of the peak", "refused", "failed", "p95 of answers (ms)"]
    return Table(
        "Beyond saturation", columns, rows, ("Requests come at random times, whatever becomes of those before.",)
    )


def _first_token(store: Path, questions: Sequence[str], size: Size) -> Table:
    with servers.tandem(store) as address:
        times = asyncio.run(_stream(address.url + CHAT, questions[: size.single]))
    first, last = (sorted(column) for column in zip(*times, strict=True))
    rows: list[list[Cell]] = [
        [name, f"{1000 * statistics.median(column):.0f}", f"{1000 * column[int(0.95 * len(column))]:.0f}"]
        for name, column in (("first text of the answer", first), ("end of the answer", last))
    ]
    return Table("A streamed answer, one caller", ["until", "p50 (ms)", "p95 (ms)"], rows)


async def _stream(url: str, questions: Sequence[str]) -> list[tuple[float, float]]:
    found = []
    async with aiohttp.ClientSession() as session:
        for text in [questions[0], *questions]:
            started = time.perf_counter()
            first = None
            body = {"model": "extractive", "stream": True, "messages": [{"role": "user", "content": text}]}
            async with session.post(url, json=body) as response:
                async for line in response.content:
                    if first is None and line.startswith(b"data: {"):
                        choices = json.loads(line[6:]).get("choices") or [{}]
                        if choices[0].get("delta", {}).get("content"):
                            first = time.perf_counter() - started
            found.append((first or 0.0, time.perf_counter() - started))
    return found[1:]


def _partitions(store: Path, questions: Sequence[str], size: Size) -> Table:
    rows: list[list[Cell]] = []
    for count in (1, 2, 4):
        peer = Peer("", lambda: servers.tandem(store, "--partitions", str(count)), SEARCH, loadgen.search_body)  # noqa: B023
        with peer.start() as address:
            _run(address, peer, questions, 1, size.seconds / 4)
            alone = _run(address, peer, questions, 1, size.seconds)
            loaded = _run(address, peer, questions, 32, size.seconds)
        rows.append([count, f"{alone.quantile(0.5):.1f}", f"{loaded.goodput:.1f}"])
    return Table(
        "What one more partition costs on one machine",
        ["partitions", "one caller: p50 (ms)", "32 callers: searches/s"],
        rows,
    )


def _run(address: Address, peer: Peer, questions: Sequence[str], callers: int, seconds: float) -> Measured:
    return _load(address, peer, questions, "--callers", str(callers), "--seconds", str(seconds))


def _load(address: Address, peer: Peer, questions: Sequence[str], *arguments: str) -> Measured:
    """One run of the load generator, in a process of its own."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump([peer.body(questions)(number) for number in range(len(questions))], file)
        file.flush()
        command = [sys.executable, str(servers.FOLDER / "loadgen.py"), address.url + peer.path, "--bodies", file.name]
        done = subprocess.run([*command, *arguments], check=True, capture_output=True, text=True)
    return Measured(**json.loads(done.stdout))


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _spread(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
