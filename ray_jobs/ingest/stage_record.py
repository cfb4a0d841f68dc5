"""What is known of one stage of a run while it goes on: sums, rates over time, its workers, its slowest pieces.

Guaranteed: memory does not grow with the number of pieces. Not guaranteed: figures of more than MOST_WORKERS workers
one by one; the others are counted together.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from ray_jobs.ingest.timeline import Timeline
from ray_jobs.ingest.usage import StageUsage

SLOWEST = 10  # pieces of a stage that are remembered
MOST_WORKERS = 256
OTHERS = "others"


@dataclass(frozen=True)
class Piece:
    """A group, a shard or a partition, as its worker has told of it."""

    number: int
    found: bool  # finished by an earlier run
    began: float  # seconds since the epoch, by the worker's clock
    seconds: float  # in the worker
    worker: str
    retries: int

    @classmethod
    def of(cls, row: Mapping[str, object]) -> Piece:
        """From a row that a worker has returned."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Content:
    """What is in a piece."""

    documents: int = 0
    chunks: int = 0
    bytes: int = 0
    engine_seconds: float = 0.0
    failed: Mapping[str, int] = field(default_factory=dict)  # by reason


@dataclass
class WorkerUse:
    """What one worker has done in a stage."""

    pieces: int = 0
    busy_seconds: float = 0.0


@dataclass(frozen=True)
class Places:
    """What a stage may take of the cluster."""

    slots: int = 1
    cpus: float = 1.0
    gpus: float = 0.0


class StageRecord:
    """One stage; times are seconds since the run began."""

    def __init__(self, name: str, places: Places, expected: int) -> None:
        self.name = name
        self.places = places
        self.expected = expected  # pieces
        self.spans: list[tuple[float, float]] = []  # when it went on
        self.timeline = Timeline()  # documents, chunks, bytes
        self.busy = Timeline()  # seconds, by worker
        self.workers: dict[str, WorkerUse] = {}
        self.failed: Counter[str] = Counter()
        self._sums = Counter[str]()
        self._busy_seconds = 0.0
        self._engine_seconds = 0.0
        self._slowest: list[tuple[float, int, int, str]] = []

    @property
    def done(self) -> int:
        """Pieces that are there."""
        return self._sums["pieces"] + self._sums["found"]

    @property
    def seconds(self) -> float:
        """How long it went on."""
        return sum(end - start for start, end in self.spans)

    @property
    def slowest(self) -> list[tuple[float, int, int, str]]:
        """Seconds, number, bytes and worker of the slowest pieces, the slowest first."""
        return sorted(self._slowest, reverse=True)

    def add(self, piece: Piece, content: Content, start: float, end: float) -> None:
        """Count a piece that was made between two times."""
        self.failed.update(content.failed)
        if piece.found:
            self._sums["found"] += 1
            return
        amounts = {"documents": content.documents, "chunks": content.chunks, "bytes": content.bytes}
        self._sums.update({"pieces": 1, "retries": piece.retries, **amounts})
        self._busy_seconds += piece.seconds
        self._engine_seconds += content.engine_seconds
        for name, amount in amounts.items():
            if amount:
                self.timeline.add(name, start, end, amount)
        self._work(piece.worker, start, end, piece.seconds)
        heapq.heappush(self._slowest, (piece.seconds, piece.number, content.bytes, piece.worker))
        if len(self._slowest) > SLOWEST:
            heapq.heappop(self._slowest)

    def usage(self) -> StageUsage:
        """The sums."""
        return StageUsage(
            seconds=round(self.seconds, 3),
            slots=self.places.slots,
            cpus=self.places.cpus,
            gpus=self.places.gpus,
            pieces=self._sums["pieces"],
            found=self._sums["found"],
            documents=self._sums["documents"],
            chunks=self._sums["chunks"],
            bytes=self._sums["bytes"],
            busy_seconds=round(self._busy_seconds, 3),
            engine_seconds=round(self._engine_seconds, 3),
            retries=self._sums["retries"],
        )

    def _work(self, worker: str, start: float, end: float, seconds: float) -> None:
        if worker not in self.workers and len(self.workers) >= MOST_WORKERS:
            worker = OTHERS
        use = self.workers.setdefault(worker, WorkerUse())
        use.pieces += 1
        use.busy_seconds += seconds
        self.busy.add(worker, start, end, seconds)
