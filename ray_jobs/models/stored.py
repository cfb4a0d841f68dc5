"""Models of a store and those that Tandem carries: listed, described, merged into their base, taken out as a folder.

    STORE/models/NAME/...          the files, as the loaders of its kind take them
    STORE/models/NAME/card.json    what it was made from; a model that was put there by hand has none

Guaranteed: a name that is taken is refused before work starts, and a model appears under its name whole or not at all
(its card comes last); a damaged model spoils no list. Not guaranteed: that a model put there by hand can be loaded; and
models of a store that is not a local one are not read here.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ray_jobs.errors import ConflictError, ModelError, NotFoundError, UsageError
from ray_jobs.models import resolve
from ray_jobs.models.adapter import ADAPTER_CONFIG, AdaptedModel, with_base
from ray_jobs.models.card import CARD, read_card, read_object
from ray_jobs.models.kind import Kind, kind_of
from ray_jobs.models.resolve import MARKERS, ResolvedModel, content_revision
from ray_jobs.storage import Storage, models_folder

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class StoredModel:
    """What is known of a model; None stands for what neither its card nor its files tell."""

    name: str
    origin: Literal["store", "shipped"]
    kind: Kind | None
    form: str | None
    base: str | None
    bytes: int
    metric: str | None
    value: float | None  # of the metric
    created: str | None
    problem: str | None  # why it cannot be used

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON shows it."""
        return asdict(self)


def models(storage: Storage) -> list[StoredModel]:
    """Every model of the store, then those that Tandem carries; a damaged one with what is wrong with it."""
    root = _root(storage)
    own = list(_names(root))
    shipped = [name for name in resolve.shipped_models() if name not in own]
    return [_described(name, folder_of(storage, name)) for name in (*own, *shipped)]


def described(storage: Storage, name: str) -> tuple[StoredModel, dict[str, Any]]:
    """A model with its card, which is empty where it has none.

    Raises NotFoundError for a name that the store does not have, ModelError for a model that is damaged.
    """
    folder = folder_of(storage, name)
    found = _described(name, folder)
    if found.problem is not None:
        raise ModelError(f"model {name!r} is damaged: {found.problem}")
    return found, read_card(folder)


def folder_of(storage: Storage, name: str) -> Path:
    """The folder of a model of the store, or that Tandem carries; raises NotFoundError that lists those there are."""
    root = _root(storage)
    there, shipped = list(_names(root)), resolve.shipped_models()
    if name in there:
        return root / name
    if name in shipped:
        return resolve.SHIPPED / name
    known = f"it has {', '.join(there)}" if there else "it has none; 'tandem train' makes one"
    also = f"; Tandem carries {', '.join(shipped)}" if shipped else ""
    raise NotFoundError(f"no model {name!r} in {storage.uri}/models: {known}{also}")


def opened(storage: Storage, name: str) -> AdaptedModel:
    """A model of the store with its base, if it is an adapter; raises NotFoundError where its base is gone."""
    folder = folder_of(storage, name)
    return with_base(ResolvedModel(name, folder, content_revision(folder), "store"), models_folder(storage))


def check_free(storage: Storage, name: str) -> None:
    """Raise UsageError for what can be no name of a model, ConflictError for one that is taken."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"as={name!r}: expected letters, digits, '.', '_' and '-' (at most 128, the first a letter or digit)"
        )
    if next(iter(storage.list(f"models/{name}")), None) is not None:
        raise ConflictError(f"as={name}: {storage.uri}/models/{name} is there already; choose another name")


def merged(storage: Storage, name: str, new: str) -> StoredModel:
    """Merge the adapter `name` into its base, as the model `new` of the store.

    Raises NotFoundError where model or base are gone, ModelError for a model that is no adapter or does not fit,
    ConflictError for a name that is taken.
    """
    from ray_jobs.models.merging import merge

    check_free(storage, new)
    about, card = described(storage, name)
    if about.kind is None:
        raise ModelError(
            f"model {name!r}: neither card nor adapter_config.json tells what it is for; expected a task_type such as "
            "CAUSAL_LM in adapter_config.json"
        )
    model = opened(storage, name)
    changed = {"name": new, "form": "merged", "merged_from": name, "created": now()}
    # Its own tokeniser says it now.
    whole = {key: value for key, value in card.items() if key != "max_tokens"}
    with storage.scratch() as scratch:
        merge(about.kind, model, scratch / "model")
        put(storage, new, scratch / "model", {"method": about.kind, **whole, **changed})
    return _described(new, folder_of(storage, new))


def put(storage: Storage, name: str, folder: Path, card: dict[str, Any]) -> None:
    """Copy the files of `folder` into the store as the model `name`: weights, what makes a model, then the card."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CARD)
    for path in sorted(files, key=lambda path: path.name in MARKERS):
        storage.upload(f"models/{name}/{path.relative_to(folder).as_posix()}", path)
    storage.create(f"models/{name}/{CARD}", json.dumps(card, indent=1).encode())


def now() -> str:
    """The time as cards have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _root(storage: Storage) -> Path:
    root = models_folder(storage)
    if root is None:
        raise UsageError(f"store={storage.uri}: models are read from a local store; copy its folder 'models' to one")
    return root


def _names(root: Path) -> Iterator[str]:
    """Folders that hold a model, by name; a name may have several parts, as those of the hub have."""
    found: list[Path] = []
    for file in sorted(path for path in root.rglob("*") if path.name in (*MARKERS, CARD)):
        folder = file.parent
        # A model of sentence-transformers has one folder a module.
        if folder != root and not any(other == folder or other in folder.parents for other in found):
            found.append(folder)
    # A folder may come after one of its own.
    top = [folder for folder in found if not any(other in folder.parents for other in found)]
    yield from sorted(folder.relative_to(root).as_posix() for folder in top)


def _described(name: str, folder: Path) -> StoredModel:
    origin: Literal["store", "shipped"] = "shipped" if folder.parent == resolve.SHIPPED else "store"
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    try:
        card, kind = read_card(folder), kind_of(folder)
        adapter = read_object(folder / ADAPTER_CONFIG)
    except ModelError as error:
        return StoredModel(name, origin, None, None, None, size, None, None, None, str(error))
    if not any((folder / marker).is_file() for marker in MARKERS):
        problem = f"{str(folder)!r} has a card and none of {', '.join(MARKERS)}: publish it again"
        return StoredModel(name, origin, None, None, None, size, None, None, None, problem)
    base = card.get("base")
    named = base.get("name") if isinstance(base, dict) else adapter.get("base_model_name_or_path")
    metric, metrics = card.get("metric"), card.get("metrics")
    value = metrics.get(metric) if isinstance(metrics, dict) and isinstance(metric, str) else None
    return StoredModel(
        name=name,
        origin=origin,
        kind=kind,
        form=_text(card.get("form")) or ("adapter" if adapter else "full"),
        base=_text(named),
        bytes=size,
        metric=_text(metric) if value is not None else None,
        value=float(value) if isinstance(value, int | float) else None,
        created=_text(card.get("created")),
        problem=None,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
