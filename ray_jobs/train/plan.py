"""What the driver of a run has fixed for all its workers, and what it names, found on one machine.

Guaranteed: base and adapter are of the revision that the driver has seen, or a ModelError says which is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ray_jobs.errors import ModelError
from ray_jobs.models.embedder_config import Precision
from ray_jobs.models.resolve import ResolvedModel, resolve
from ray_jobs.storage import Storage
from ray_jobs.train import resume
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.starting import find_start


@dataclass(frozen=True, slots=True)
class Plan:
    """What the driver has fixed for all workers of a run."""

    config: TrainConfig
    store: str
    run: str  # the run's folder in the store
    base_revision: str
    data_hash: str
    train: str  # keys of the splits in the store, or paths
    validation: str
    device: Literal["cuda", "cpu"]
    precision: Precision
    replay: str | None = None  # like the splits
    replay_hash: str | None = None
    start_revision: str | None = None  # of the adapter that it starts from
    train_sha256: str | None = None  # None: not checked
    validation_sha256: str | None = None

    @property
    def expected(self) -> resume.Expected:
        """What a checkpoint of this run was made from."""
        return resume.Expected(self.config.method, self.config.base, self.base_revision, self.data_hash)

    @property
    def finished(self) -> str:
        """The key whose presence says that the run is over."""
        return f"{self.run}/finished.json"


def base_folder(storage: Storage, plan: Plan) -> Path:
    """The base on this machine; raises ModelError for another revision than the driver has."""
    found = resolve(plan.config.base, storage)
    _check_revision(f"base={plan.config.base}", found, plan.base_revision)
    return found.path


def start_of(storage: Storage, plan: Plan) -> ResolvedModel | None:
    """The adapter to start from, on this machine; raises ModelError for another revision than the driver has."""
    found = find_start(plan.config, plan.base_revision, storage)
    if found is not None:
        _check_revision(f"lora.start={found.name}", found, plan.start_revision)
    return found


def _check_revision(name: str, found: ResolvedModel, expected: str | None) -> None:
    if found.revision != expected:
        raise ModelError(
            f"{name}: this machine has revision {found.revision} in {str(found.path)!r}, the driver has "
            f"{expected}; bring both to one state"
        )
