"""Models of a store and those that Tandem carries: listed, described, merged into their base, taken out as a folder.

Guaranteed: to list and to describe reads no weights; a name that is taken is refused before work starts, and a model
appears under its name whole or not at all (its card comes last); a damaged model spoils no list. Not guaranteed: that a
model put there by hand can be loaded.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ray_jobs.errors import ModelError, NotFoundError
from ray_jobs.models import in_store, resolve
from ray_jobs.models.adapter import ADAPTER_CONFIG, AdaptedModel, with_base
from ray_jobs.models.card import read_card, read_object
from ray_jobs.models.in_store import MARKERS
from ray_jobs.models.kind import Kind, kind_of
from ray_jobs.models.resolve import ResolvedModel
from ray_jobs.storage import Storage, now

Origin = Literal["store", "shipped"]


@dataclass(frozen=True, slots=True)
class StoredModel:
    """What is known of a model; None stands for what neither its card nor its files tell."""

    name: str
    origin: Origin
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
    own = in_store.found(storage)
    shipped = [name for name in resolve.shipped_models() if name not in {model.name for model in own}]
    return [*(_of_store(storage, model)[0] for model in own), *(_shipped(name)[0] for name in shipped)]


def described(storage: Storage, name: str) -> tuple[StoredModel, dict[str, Any]]:
    """A model with its card, which is empty where it has none.

    Raises NotFoundError for a name that the store does not have, which lists those there are; ModelError for a model
    that is damaged.
    """
    own, shipped = {model.name: model for model in in_store.found(storage)}, resolve.shipped_models()
    if name in own:
        found, card = _of_store(storage, own[name])
    elif name in shipped:
        found, card = _shipped(name)
    else:
        known = f"it has {', '.join(own)}" if own else "it has none; 'tandem train' makes one"
        also = f"; Tandem carries {', '.join(shipped)}" if shipped else ""
        raise NotFoundError(f"no model {name!r} in {storage.uri}/models: {known}{also}")
    if found.problem is not None:
        raise ModelError(f"model {name!r} is damaged: {found.problem}")
    return found, card


def opened(storage: Storage, model: StoredModel) -> AdaptedModel:
    """The files of a model that was described, and its base's, if it is an adapter.

    Raises NotFoundError where it or its base is gone.
    """
    folder = resolve.SHIPPED / model.name if model.origin == "shipped" else in_store.local_folder(storage, model.name)
    if folder is None:
        raise NotFoundError(f"{in_store.place(storage, model.name)} is gone; 'tandem models list' shows what there is")
    return with_base(ResolvedModel(model.name, folder, resolve.content_revision(folder), model.origin), storage)


def merged(storage: Storage, name: str, new: str) -> StoredModel:
    """Merge the adapter `name` into its base, as the model `new` of the store.

    Raises NotFoundError where model or base are gone, ModelError for a model that is no adapter or does not fit,
    ConflictError for a name that is taken.
    """
    from ray_jobs.models.merging import merge

    in_store.check_free(storage, "as", new)
    about, card = described(storage, name)
    if about.kind is None:
        raise ModelError(
            f"model {name!r}: neither card nor adapter_config.json tells what it is for; expected a task_type such as "
            "CAUSAL_LM in adapter_config.json"
        )
    model = opened(storage, about)
    changed = {"name": new, "form": "merged", "merged_from": name, "created": now()}
    # Its own tokeniser says it now.
    whole = {key: value for key, value in card.items() if key != "max_tokens"}
    with storage.scratch() as scratch:
        merge(about.kind, model, scratch / "model")
        in_store.put(storage, new, scratch / "model", {**whole, "kind": about.kind, **changed})
    return described(storage, new)[0]


def _of_store(storage: Storage, model: in_store.ModelFiles) -> tuple[StoredModel, dict[str, Any]]:
    with in_store.described(storage, model) as folder:
        return _described(model.name, "store", folder, model.bytes, in_store.place(storage, model.name))


def _shipped(name: str) -> tuple[StoredModel, dict[str, Any]]:
    folder = resolve.SHIPPED / name
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return _described(name, "shipped", folder, size, str(folder))


def _described(name: str, origin: Origin, folder: Path, size: int, place: str) -> tuple[StoredModel, dict[str, Any]]:
    """The model and its card by the files in `folder`, which people know as `place`."""

    def damaged(problem: str) -> tuple[StoredModel, dict[str, Any]]:
        return StoredModel(name, origin, None, None, None, size, None, None, None, problem), {}

    try:
        card, kind = read_card(folder), kind_of(folder)
        adapter = read_object(folder / ADAPTER_CONFIG)
    except ModelError as error:
        return damaged(str(error).replace(str(folder), place))
    if not any((folder / marker).is_file() for marker in MARKERS):
        return damaged(f"{place!r} has a card and none of {', '.join(MARKERS)}: publish it again")
    base = card.get("base")
    named = base.get("name") if isinstance(base, dict) else adapter.get("base_model_name_or_path")
    metric, metrics = card.get("metric"), card.get("metrics")
    value = metrics.get(metric) if isinstance(metrics, dict) and isinstance(metric, str) else None
    found = StoredModel(
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
    return found, card


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
