"""What a run leaves for those who look at it: event files of TensorBoard, who worked on it, how long its steps took.

    runs/NAME/IDENTITY/tensorboard/events.out.tfevents.STEP.ATTEMPT   the events up to a checkpoint at STEP
    runs/NAME/IDENTITY/attempts/ATTEMPT.json                          a group of workers that began, and at which step

Guaranteed: each logged step is there once, whatever was killed: a file is closed and stored before the checkpoint of
its last step is complete, and whoever resumes removes those of later steps. Only the first worker writes. Not
guaranteed: events since the last checkpoint while the run goes on.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ray_jobs.storage import Storage, now

SECONDS = "training_seconds"
"""In an entry of the trainer's log: time that this attempt has trained, without evaluations and checkpoints."""
FOLDER = "tensorboard"
ATTEMPTS = "attempts"
_PREFIX = "events.out.tfevents."
# Of the whole run, or of the trainer's own counting of epochs, which are one.
_NOT_OF_A_STEP = ("epoch", "seconds", "training_seconds", "train_runtime", "train_loss", "total_flos")


class Record(TrainerCallback):  # type: ignore[misc]
    """Writes events and times; stands before what completes checkpoints."""

    def __init__(self, storage: Storage, run: str, attempt: str, resumed_at: int, scratch: Path) -> None:
        """`resumed_at` is the step of the checkpoint that the run goes on from, 0 without one."""
        self._storage = storage
        self._run = run
        self._attempt = attempt
        self._resumed_at = resumed_at
        self._file = scratch / "events"
        self._events: list[tuple[float, int, dict[str, float]]] = []
        self._clock = _Clock()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Remove what the checkpoint does not know of, and say who begins."""
        self._clock = _Clock()
        if not state.is_world_process_zero:
            return
        for item in list(self._storage.list(f"{self._run}/{FOLDER}")):
            if step_of(item.key) > self._resumed_at:
                self._storage.delete(item.key)
        about = {
            "began": now(),
            "step": state.global_step,
            "workers": args.world_size,
            "device": args.device.type,
        }
        self._storage.create(f"{self._run}/{ATTEMPTS}/{self._attempt}.json", json.dumps(about).encode())

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Let the clock go on."""
        self._clock.go_on()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Take the time."""
        self._clock.step()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Stop the clock."""
        self._clock.pause()

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Write an entry of the trainer's log, and into it how long the run has trained."""
        if not state.is_world_process_zero:
            return
        if state.log_history:
            state.log_history[-1][SECONDS] = round(self._clock.seconds, 4)
        if found := scalars(given["logs"]):
            self._events.append((time.time(), state.global_step, found))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Store the events up to this checkpoint, before it is complete."""
        self._clock.pause()
        self._store(state.global_step)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Store the events since the last checkpoint, where the run ends without one."""
        self._store(state.global_step)

    def _store(self, step: int) -> None:
        if not self._events:
            return
        write_events(self._file, self._events)
        self._events = []
        self._storage.upload(f"{self._run}/{FOLDER}/{_PREFIX}{step:08d}.{self._attempt}", self._file)
        self._file.unlink(missing_ok=True)


def scalars(logs: Mapping[str, Any]) -> dict[str, float]:
    """The entries of a log that are numbers of a step, by the tags that TensorBoard groups them by."""
    if "train_runtime" in logs:
        return {}
    found = {}
    for key, value in logs.items():
        if key in _NOT_OF_A_STEP or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if math.isfinite(value):
            found[f"eval/{key[5:]}" if key.startswith("eval_") else f"train/{key}"] = float(value)
    return found


def write_events(file: Path, events: Sequence[tuple[float, int, Mapping[str, float]]]) -> None:
    """Write (seconds since 1970, step, values by tag) as an event file."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    with file.open("wb") as stream:
        records = RecordWriter(stream)
        records.write(Event(wall_time=events[0][0], file_version="brain.Event:2").SerializeToString())
        for seconds, step, values in events:
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
            records.write(Event(wall_time=seconds, step=step, summary=summary).SerializeToString())


def step_of(key: str) -> int:
    """The last step of an event file, from its key; -1 for another file."""
    name = key.rpartition("/")[2]
    number = name.removeprefix(_PREFIX).partition(".")[0]
    return int(number) if name.startswith(_PREFIX) and number.isdigit() else -1


class _Clock:
    """Time of training; what lies between a pause and the next step does not count."""

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()
        self._paused = 0.0
        self._resting = False

    @property
    def seconds(self) -> float:
        return self._last - self._started - self._paused

    def step(self) -> None:
        self._last = time.monotonic()

    def pause(self) -> None:
        self._resting = True

    def go_on(self) -> None:
        if self._resting:
            self._paused += time.monotonic() - self._last
            self._resting = False
