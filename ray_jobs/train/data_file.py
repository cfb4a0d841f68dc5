"""A file of rows as the data of a run: it is prepared first, once."""

from __future__ import annotations

import re
from pathlib import Path

from ray_jobs.corpus.formats import format_of
from ray_jobs.errors import TandemError
from ray_jobs.progress import Progress
from ray_jobs.storage import Storage
from ray_jobs.train import prepare
from ray_jobs.train.data.config import PrepareConfig
from ray_jobs.train.data.planning import FORMATS


def is_file(name: str) -> bool:
    """Whether `data=name` is a file of rows that must be prepared first."""
    return not Path(name).expanduser().is_dir() and format_of(name) in FORMATS


def prepare_file(name: str, storage: Storage, progress: Progress, base: str | None = None) -> str:
    """Prepare a file of rows as `tandem prepare` does by default, unless it is; returns NAME@HASH of the data.

    Its card counts the tokens of `base`, where that model is here. They are no part of what the data are: with another
    base, the same rows are not prepared again.

    Raises what preparation raises, with what to do about splits that a small file does not fill.
    """
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
