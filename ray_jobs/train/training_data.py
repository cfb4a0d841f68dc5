"""The data that a run learns from: prepared, in a folder or in the store, or a file that is prepared first.

Guaranteed: what is found is complete, and is known by a hash of its content; a worker reads the very bytes that the
driver found, or none. Not guaranteed: that a folder or a file of this machine is there on another one.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ray_jobs.corpus.formats import format_of
from ray_jobs.errors import NotFoundError, TandemError, UsageError
from ray_jobs.progress import Progress
from ray_jobs.storage import Storage, sha256_of
from ray_jobs.storage.objects import cache_folder
from ray_jobs.train.data.planning import FORMATS
from ray_jobs.train.data.prepared import open_prepared
from ray_jobs.train.evaluation.sets import local_file
from ray_jobs.train.methods import Splits

if TYPE_CHECKING:
    from ray_jobs.train.worker import Plan

_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Data:
    """Prepared data: where its splits are (a key of the store, or an absolute path), and what identifies it."""

    train: str
    validation: str
    hash: str
    train_sha256: str
    validation_sha256: str


def is_file(name: str) -> bool:
    """Whether `data=name` is a file of rows that must be prepared first."""
    return not Path(name).expanduser().is_dir() and format_of(name) in FORMATS


def prepare_file(name: str, storage: Storage, progress: Progress, base: str | None = None) -> str:
    """Prepare a file of rows as `tandem prepare` does by default, unless it is; returns NAME@HASH of the data.

    Its card counts the tokens of `base`, where that model is here. They are no part of what the data are: with another
    base, the same rows are not prepared again.

    Raises what preparation raises, with what to do about splits that a small file does not fill.
    """
    from ray_jobs.train import prepare
    from ray_jobs.train.data.config import PrepareConfig

    source = name if "://" in name else str(Path(name).expanduser().absolute())
    config = PrepareConfig(inputs=(source,), name=name_of(source), store=storage.uri)
    try:
        return prepare.run(config, progress, base).prepared.reference
    except TandemError as error:
        raise type(error)(f"data={name}: {error}; or prepare it by itself: tandem prepare {name} --name NAME") from None


def name_of(file: str) -> str:
    """A name for the data prepared from a file: its own, as far as it can be one."""
    stem = file.rsplit("/", 1)[-1].partition("?")[0].split(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")[:128] or "data"


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
