"""What a run leaves for those who look at it, while it goes on: events, figures for Prometheus, sums for its report.

    STORE/runs/JOB-ID/config.json    what was asked for, from the beginning
    STORE/runs/JOB-ID/events.jsonl   a line an event, as it happens (in a bucket: events.jsonl.parts/ until the end)

An event has `time`, `event` and what belongs to it: run, begin, piece, end, recall, published, unchanged, failed,
interrupted. Guaranteed: each finished piece is one event, whatever was tried again; of a run that was killed the events
up to then stay, and the run that goes on from it has a record of its own. Memory does not depend on the number of
pieces. A store that refuses costs events and not the run. A run that is refused before it has read anything leaves
nothing. Not guaranteed: the order of pieces.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from pydantic import BaseModel

from ray_jobs.errors import TandemError, first_line
from ray_jobs.index import layout
from ray_jobs.ingest.metrics import IngestMetrics, metrics_of
from ray_jobs.ingest.stage_record import Content, Piece, Places, StageRecord
from ray_jobs.ingest.usage import StageUsage
from ray_jobs.storage import Storage
from ray_jobs.storage.journal import Journal, journal

DRIVER = "driver"
START = "start"  # the stage in which a run is checked, before it reads anything


class Record:
    """The record of one run."""

    def __init__(self, index: str, job_id: str) -> None:
        self.index = index
        self.job_id = job_id
        self.stages: dict[str, StageRecord] = {}  # in the order of their beginnings
        self.began = time.time()
        self._journal: Journal | None = None
        self._metrics: IngestMetrics | None = None

    @property
    def seconds(self) -> dict[str, float]:
        """Of each stage."""
        return {name: stage.seconds for name, stage in self.stages.items()}

    @property
    def usage(self) -> dict[str, StageUsage]:
        """Of each stage."""
        return {name: stage.usage() for name, stage in self.stages.items()}

    @property
    def began_at(self) -> str:
        """When the run began, UTC."""
        return f"{datetime.fromtimestamp(self.began, UTC):%Y-%m-%d %H:%M:%S} UTC"

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.time() - self.began

    @contextmanager
    def kept(self, storage: Storage, config: BaseModel, **about: object) -> Iterator[None]:
        """Keep the record in the store as long as the run goes on; `about` tells of the run in its first event."""
        folder = layout.run_folder(self.job_id)
        with suppress(TandemError):
            storage.create(f"{folder}/config.json", config.model_dump_json(indent=1).encode())
        self._metrics = metrics_of(self.index)
        try:
            with journal(storage, f"{folder}/events.jsonl") as self._journal:
                self.event("run", job_id=self.job_id, index=self.index, **about)
                with self._ended():
                    yield
        except TandemError:
            if not self.stages.keys() - {START}:
                for name in ("events.jsonl", "config.json"):
                    with suppress(TandemError):
                        storage.delete(f"{folder}/{name}")
            raise

    @contextmanager
    def _ended(self) -> Iterator[None]:
        """Tell how the run ends, unless it does well."""
        try:
            yield
        except Exception as error:
            self.event("failed", reason=first_line(error))
            raise
        except KeyboardInterrupt:
            self.event("interrupted")
            raise
        finally:
            self._journal = None

    def event(self, kind: str, **values: object) -> None:
        """Tell what has happened."""
        if self._journal is not None:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            self._journal.write(json.dumps({"time": now, "event": kind, **values}))

    @contextmanager
    def stage(self, name: str, pieces: int, places: Places) -> Iterator[StageWatch]:
        """A stage whose pieces are made by workers."""
        record = self.stages.setdefault(name, StageRecord(name, places, 0))
        record.expected += pieces
        self.event("begin", stage=name, pieces=pieces, slots=places.slots, cpus=places.cpus, gpus=places.gpus)
        started, monotonic = self.elapsed, time.monotonic()
        if self._metrics:
            self._metrics.began(name)
        try:
            yield StageWatch(self, record, started)
        finally:
            seconds = time.monotonic() - monotonic
            record.spans.append((started, started + seconds))
            self.event("end", stage=name, seconds=round(seconds, 3), pieces=record.done, of=record.expected)
            if self._metrics:
                self._metrics.ended(name)

    @contextmanager
    def driver_stage(self, name: str) -> Iterator[None]:
        """A stage that this process does by itself, as one piece."""
        with self.stage(name, 1, Places()) as watch:
            began, started = time.time(), time.monotonic()
            yield
            watch.piece(Piece(0, False, began, time.monotonic() - started, DRIVER, 0), Content())

    def finished(self, stage: StageRecord, piece: Piece, content: Content, started: float) -> None:
        """Count a piece of a stage that began at `started`, and tell."""
        # The clocks of two machines differ: no piece begins before its stage or ends after now.
        end = min(piece.began + piece.seconds - self.began, self.elapsed)
        stage.add(piece, content, max(started, end - piece.seconds), max(started, end))
        if self._metrics:
            self._metrics.finished(stage, piece, content)
        self.event(
            "piece",
            stage=stage.name,
            number=piece.number,
            found=piece.found,
            seconds=round(piece.seconds, 3),
            worker=piece.worker,
            **_without_nothing(
                documents=content.documents,
                chunks=content.chunks,
                bytes=content.bytes,
                retries=piece.retries,
                failed=dict(content.failed),
            ),
        )


class StageWatch:
    """Through which a stage tells of its pieces."""

    def __init__(self, record: Record, stage: StageRecord, started: float) -> None:
        self._record = record
        self._stage = stage
        self._started = started

    def piece(self, piece: Piece, content: Content) -> None:
        """A piece is finished."""
        self._record.finished(self._stage, piece, content, self._started)


def _without_nothing(**values: object) -> Mapping[str, object]:
    return {name: value for name, value in values.items() if value}
