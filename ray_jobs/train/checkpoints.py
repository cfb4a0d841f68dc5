"""The checkpoints of one run in the store: what one consists of, which are complete, which survive.

    runs/NAME/IDENTITY/checkpoints/STEP-ATTEMPT/...      the files of all workers, side by side
    runs/NAME/IDENTITY/checkpoints/STEP-ATTEMPT.json     the record, written last: it makes the checkpoint complete

Guaranteed: every worker uploads only what it alone has written (a link, not a copy, where the store is on the same
file system); a checkpoint that is not complete is never read and is removed by the next attempt; the `keep` last and
the `keep` best stay. Not guaranteed: that two runs of the same identity at once do not disturb each other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ray_jobs.errors import CorruptError
from ray_jobs.models.embedder_config import Precision
from ray_jobs.storage import Storage

# Of no use to whoever resumes: a script of DeepSpeed's, a model card without content, pickled arguments.
_LEFT_OUT = {"zero_to_fp32.py", "README.md", "training_args.bin"}
# What a worker other than the first has for itself alone; its rank is in the name.
_OF_ONE_WORKER = re.compile(
    r"(?:^|/)(?:rng_state_(\d+)\.pth|(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_\d+_(?:optim|model)_states\.pt)$"
)
# What a checkpoint has besides the model.
_OF_THE_RUN = {"optimizer.pt", "scheduler.pt", "scaler.pt", "trainer_state.json", "latest", "training_args.bin"}
# What its evaluation tells of itself, not of the model.
_OF_THE_TRAINER = ("runtime", "per_second", "epoch", "num_tokens")


class Checkpoint(BaseModel):
    """The record of a complete checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str  # the folder of its files
    step: int
    workers: int
    engine: Literal["ddp", "deepspeed"]
    stage: int
    metric: float | None  # value of the metric that chooses the best; None where it was not measured
    metrics: dict[str, float]
    method: str
    base_revision: str
    data_hash: str
    files: dict[str, int]  # name inside the folder -> bytes
    precision: Precision | None = None  # of the run; None in records of before it was kept


def of_validation(metrics: Mapping[str, float]) -> dict[str, float]:
    """What people want to know of what an evaluation found, without `eval_`: not its duration, not what is counted."""
    return {
        name.removeprefix("eval_"): value
        for name, value in sorted(metrics.items())
        if name.startswith("eval_") and not any(part in name for part in _OF_THE_TRAINER)
    }


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, storage: Storage, run_folder: str) -> None:
        self._storage = storage
        self._folder = f"{run_folder}/checkpoints"

    def key(self, step: int, attempt: str) -> str:
        """The folder of a checkpoint that `attempt` makes: attempts never write each other's keys."""
        return f"{self._folder}/{step:08d}-{attempt}"

    def complete(self) -> list[Checkpoint]:
        """All complete checkpoints, by step; of two of one step, both."""
        records = [item.key for item in self._storage.list(self._folder) if _is_record(item.key, self._folder)]
        return sorted((self._read(key) for key in records), key=lambda found: (found.step, found.key))

    def upload(self, key: str, folder: Path, first: bool) -> None:
        """Store what this worker has written to `folder`; `first` is the worker that writes what all share."""
        for name, path in _files(folder):
            if first or _OF_ONE_WORKER.search(name):
                self._storage.upload(f"{key}/{name}", path)

    def commit(self, record: Checkpoint) -> None:
        """Make a checkpoint complete, after every worker has uploaded; the sizes of its files are filled in."""
        sizes = {
            str(PurePosixPath(item.key).relative_to(record.key)): item.size for item in self._storage.list(record.key)
        }
        whole = record.model_copy(update={"files": sizes})
        self._storage.create(f"{record.key}.json", whole.model_dump_json(indent=1).encode())

    def forget(self) -> None:
        """Remove what `fetch` has brought to this machine: whole checkpoints would fill its disk run by run."""
        self._storage.forget(self._folder)

    def fetch(self, checkpoint: Checkpoint, wanted: Callable[[str], bool] = lambda name: True) -> Path:
        """A local folder with the files of a checkpoint whose names are `wanted`, to be read only.

        In place where the store is local, and so with all of them.
        """
        folder: Path | None = None
        for name, size in checkpoint.files.items():
            if not wanted(name):
                continue
            path = self._storage.local(f"{checkpoint.key}/{name}")
            if path.stat().st_size != size:
                raise CorruptError(
                    f"{self._storage.uri}/{checkpoint.key}/{name}: {path.stat().st_size} bytes, expected {size}; "
                    f"delete {checkpoint.key}.json to resume from an earlier checkpoint"
                )
            folder = path.parents[len(PurePosixPath(name).parts) - 1]
        if folder is None:
            raise CorruptError(f"{self._storage.uri}/{checkpoint.key}: no files; delete {checkpoint.key}.json")
        return folder

    def retain(self, keep: int, mode: Literal["min", "max"]) -> None:
        """Remove all but the `keep` last and the `keep` best."""
        found = self.complete()
        stay = {checkpoint.key for checkpoint in survivors(found, keep, mode)}
        for checkpoint in found:
            if checkpoint.key not in stay:
                self._remove(checkpoint.key)

    def sweep(self) -> None:
        """Remove what attempts have left that did not come to commit."""
        complete = {checkpoint.key for checkpoint in self.complete()}
        for item in list(self._storage.list(self._folder)):
            folder = "/".join(item.key.split("/")[: self._folder.count("/") + 2])
            if not _is_record(item.key, self._folder) and folder not in complete:
                self._storage.delete(item.key)

    def _remove(self, key: str) -> None:
        # The record first: what is half removed must not look complete.
        self._storage.delete(f"{key}.json")
        for item in list(self._storage.list(key)):
            self._storage.delete(item.key)

    def _read(self, key: str) -> Checkpoint:
        try:
            return Checkpoint.model_validate_json(self._storage.read(key))
        except ValidationError as error:
            reason = " ".join(str(error).split())[:200]
            raise CorruptError(
                f"{self._storage.uri}/{key}: not the record of a checkpoint ({reason}); delete it"
            ) from None


def of_the_model(name: str) -> bool:
    """Whether a file of a checkpoint belongs to the model: not to the optimiser, or to the run otherwise."""
    folder, _, file = name.rpartition("/")
    return not (folder.startswith("global_step") or file in _OF_THE_RUN or file.startswith("rng_state"))


def of_worker(rank: int, name: str) -> bool:
    """Whether the worker of this rank reads a file of a checkpoint of as many workers as there are."""
    found = _OF_ONE_WORKER.search(name)
    return found is None or str(rank) in found.groups()


def best(checkpoints: Sequence[Checkpoint], mode: Literal["min", "max"]) -> Checkpoint | None:
    """The best by metric, of equals the last; the last of all where none was measured; None of none."""
    ranked = _ranked(checkpoints, mode)
    return ranked[0] if ranked else (checkpoints[-1] if checkpoints else None)


def survivors(checkpoints: Sequence[Checkpoint], keep: int, mode: Literal["min", "max"]) -> list[Checkpoint]:
    """The `keep` last and the `keep` best of checkpoints in order of step, in that order."""
    stay = {checkpoint.key for checkpoint in (*checkpoints[-keep:], *_ranked(checkpoints, mode)[:keep])}
    return [checkpoint for checkpoint in checkpoints if checkpoint.key in stay]


def _ranked(checkpoints: Sequence[Checkpoint], mode: Literal["min", "max"]) -> list[Checkpoint]:
    sign = 1 if mode == "min" else -1
    measured = [
        (sign * found.metric, -place, found) for place, found in enumerate(checkpoints) if found.metric is not None
    ]
    return [found for _, _, found in sorted(measured, key=lambda item: item[:2])]


def _files(folder: Path) -> list[tuple[str, Path]]:
    found = [(path.relative_to(folder).as_posix(), path) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [(name, path) for name, path in found if path.name not in _LEFT_OUT]


def _is_record(key: str, folder: str) -> bool:
    return key.endswith(".json") and key.count("/") == folder.count("/") + 1
