"""The prepared data that a run learns from, in a folder or in the store.

Guaranteed: what is found is complete, and is known by a hash of its content; a worker reads the very bytes that the
driver found, or none. Not guaranteed: that a folder of this machine is there on another one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ray_jobs.errors import NotFoundError, UsageError
from ray_jobs.storage import Storage, sha256_of
from ray_jobs.storage.objects import cache_folder
from ray_jobs.train.data.prepared import open_prepared
from ray_jobs.train.evaluation.sets import local_file
from ray_jobs.train.methods import Splits
from ray_jobs.train.plan import Plan

_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Data:
    """Prepared data: where its splits are (a key of the store, or an absolute path), and what identifies it."""

    train: str
    validation: str
    hash: str
    train_sha256: str
    validation_sha256: str


def find_data(name: str, storage: Storage) -> Data:
    """Prepared data by its folder, by its name in the store, or by NAME@HASH; see `open_prepared`.

    Raises NotFoundError where there is none, UsageError for a folder that lacks a split, CorruptError for a card that
    cannot be read.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        files = [folder.absolute() / f"{split}.parquet" for split in _SPLITS]
        for file in files[:2]:
            if not file.is_file():
                raise UsageError(f"data={name}: the folder has no {file.name}; expected data that was prepared")
        sums = [sha256_of(file) for file in files if file.is_file()]
        digest = hashlib.sha256("".join(sums).encode()).hexdigest()
        return Data(str(files[0]), str(files[1]), digest, sums[0], sums[1])
    try:
        found = open_prepared(storage, name)
    except NotFoundError as error:
        if "@" in name:
            raise
        raise NotFoundError(
            f"data={name}: neither a folder nor a data set of {storage.uri}; prepare the data first, or name "
            "the folder of its splits, or a file of rows (.jsonl or .parquet)"
        ) from error
    (train, train_sha256), (validation, validation_sha256) = found.file("train"), found.file("validation")
    return Data(train, validation, found.card.hash, train_sha256, validation_sha256)


def splits_of(storage: Storage, plan: Plan) -> Splits:
    """The rows to learn from, on this machine.

    Raises CorruptError where they are not those that the plan was made with.
    """
    learned = plan.data_hash
    if plan.replay is not None and plan.config.replay is not None:
        mix = f"{plan.data_hash} {plan.replay_hash} {plan.config.replay.share} {plan.config.seed}"
        learned = hashlib.sha256(mix.encode()).hexdigest()
    return Splits(
        local_file(storage, plan.train, plan.train_sha256),
        local_file(storage, plan.validation, plan.validation_sha256),
        learned,
        cache_folder() / "training" / learned[:16],
        None if plan.replay is None else local_file(storage, plan.replay, plan.replay_hash),
    )
