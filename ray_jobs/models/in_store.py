"""The models of a store as files: which there are, one of them as a local folder, and how one comes in.

    STORE/models/NAME/...          the files, as the loaders of its kind take them
    STORE/models/NAME/card.json    what it was made from, written last; a model that was put there by hand has none

Guaranteed: a name may have several parts, as those of the hub have; of a store that is not a local one a model is
fetched when it is asked for, as it is then, and only its files. Not guaranteed: that the files are a model that loads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ray_jobs.errors import ConflictError, NotFoundError, UsageError
from ray_jobs.storage import LocalStorage, ObjectInfo, Storage

CARD = "card.json"
MARKERS = ("modules.json", "config.json", "adapter_config.json")  # one of them makes a folder a model
# What tells what a model is without its weights.
_ABOUT = (*MARKERS, CARD, "config_sentence_transformers.json")
_FOLDER = "models"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model of a store by what is listed of it."""

    name: str
    objects: Sequence[ObjectInfo]

    @property
    def bytes(self) -> int:
        """The size of all its files."""
        return sum(item.size for item in self.objects)


def place(storage: Storage, name: str) -> str:
    """Where the store has, or would have, a model of that name, as people read it."""
    return f"{storage.uri}/{_key(name)}"


def found(storage: Storage) -> list[ModelFiles]:
    """Every model of the store, by name; nothing but the listing is read."""
    objects = sorted(storage.list(_FOLDER), key=lambda item: item.key)
    marked = {PurePosixPath(item.key).parent for item in objects if _file(item) in (*MARKERS, CARD)}
    marked.discard(PurePosixPath(_FOLDER))
    # A model of sentence-transformers has one folder a module.
    folders = sorted(folder for folder in marked if not marked.intersection(folder.parents))
    return [
        ModelFiles(
            folder.relative_to(_FOLDER).as_posix(),
            [item for item in objects if folder in PurePosixPath(item.key).parents],
        )
        for folder in folders
    ]


def local_folder(storage: Storage, name: str) -> Path | None:
    """A local folder with the model of that name, to be read only; None where the store has none.

    Of a local store, any folder of that name. Raises StorageError where the store refuses.
    """
    if any(part in ("", ".", "..") for part in name.split("/")):
        return None
    key = _key(name)
    # What is being written, and has none of them yet, would be fetched in vain.
    if not isinstance(storage, LocalStorage) and not any(storage.exists(f"{key}/{marker}") for marker in MARKERS):
        return None
    try:
        return storage.local_folder(key)
    except NotFoundError:
        return None


@contextmanager
def described(storage: Storage, model: ModelFiles) -> Iterator[Path]:
    """A folder with what tells what the model is: its files, or those of them that are no weights."""
    if isinstance(storage, LocalStorage):
        yield storage.root / _key(model.name)
        return
    with storage.scratch() as scratch:
        for item in model.objects:
            if item.key in {f"{_key(model.name)}/{file}" for file in _ABOUT}:
                with suppress(NotFoundError):  # it may be deleted meanwhile
                    (scratch / _file(item)).write_bytes(storage.read(item.key))
        yield scratch


def check_free(storage: Storage, key: str, name: str) -> None:
    """Raise UsageError for what can be no name of a model, ConflictError for one that is taken.

    `key` is the one of the configuration that says `name`.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{key}={name!r}: expected letters, digits, '.', '_' and '-' (at most 128, the first a letter or digit)"
        )
    if next(iter(storage.list(_key(name))), None) is not None:
        made_by = run_of(storage, name)
        whose = f", made by {made_by}," if made_by else ""
        raise ConflictError(
            f"{key}={name}: {place(storage, name)}{whose} is there already; choose another name, or delete that folder"
        )


def run_of(storage: Storage, name: str) -> str | None:
    """The run that the card of a model says has made it; None without a card that says so."""
    run = card_of(storage, name).get("run")
    return run if isinstance(run, str) else None


def card_of(storage: Storage, name: str) -> dict[str, Any]:
    """What the card of a model says; nothing where there is none that can be read."""
    try:
        card = json.loads(storage.read(f"{_key(name)}/{CARD}"))
    except (NotFoundError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}


def is_complete(storage: Storage, name: str) -> bool:
    """Whether the store has a model of that name with its card."""
    return storage.exists(f"{_key(name)}/{CARD}")


def put(storage: Storage, name: str, folder: Path, card: dict[str, Any]) -> None:
    """Copy the files of `folder` into the store as the model `name`: weights, what makes a model, then the card."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CARD)
    for path in sorted(files, key=lambda path: path.name in MARKERS):
        storage.upload(f"{_key(name)}/{path.relative_to(folder).as_posix()}", path)
    storage.create(f"{_key(name)}/{CARD}", json.dumps(card, indent=1).encode())


def remove(storage: Storage, name: str) -> None:
    """Delete what the store has under that name, the card first."""
    storage.delete(f"{_key(name)}/{CARD}")
    for item in list(storage.list(_key(name))):
        storage.delete(item.key)


def _key(name: str) -> str:
    return f"{_FOLDER}/{name}"


def _file(item: ObjectInfo) -> str:
    return PurePosixPath(item.key).name
