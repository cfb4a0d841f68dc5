"""A model that is an adapter (PEFT) of another: which folder it lies in, and which base it belongs to.

Guaranteed: the base is looked for in the same places as any model, by the name in `adapter_config.json`; only weights
in safetensors are accepted. Not guaranteed: that an adapter of the hub without a `config.json` is found in the cache
while offline.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ray_jobs.errors import ModelError, NotFoundError
from ray_jobs.models.resolve import Origin, ResolvedModel, content_revision, resolve

ADAPTER_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class AdaptedModel:
    """A model's folder; with an adapter, that of the base and that of the adapter."""

    base: ResolvedModel
    adapter: ResolvedModel | None

    @property
    def name(self) -> str:
        """The name that was asked for."""
        return self.base.name if self.adapter is None else self.adapter.name

    @property
    def revision(self) -> str:
        """Identifies the content of base and adapter."""
        return self.base.revision if self.adapter is None else f"{self.base.revision}+{self.adapter.revision}"


def resolve_adapted(name: str, store_models: Path | None = None) -> AdaptedModel:
    """Find the folder of `name` and, if it is an adapter, that of its base.

    Raises NotFoundError saying where it looked, ModelError for a folder that holds neither.
    """
    found = _bare_adapter(name, store_models) or resolve(name, store_models)
    if not (found.path / ADAPTER_CONFIG).is_file():
        return AdaptedModel(found, None)
    base = _base_of(found)
    if not (found.path / _WEIGHTS).is_file():
        raise ModelError(f"adapter {name!r} in {str(found.path)!r} has no {_WEIGHTS}: save it again as safetensors")
    try:
        return AdaptedModel(resolve(base, store_models), found)
    except NotFoundError as error:
        raise NotFoundError(f"adapter {name!r} needs its base: {error}") from error


def _bare_adapter(name: str, store_models: Path | None) -> ResolvedModel | None:
    """An adapter's folder that holds nothing else, which `resolve` takes for no model."""
    places: list[tuple[Path, Origin]] = [(Path(name).expanduser(), "path")]
    if store_models is not None:
        places.append((store_models / name, "store"))
    for folder, origin in places:
        if folder.is_dir():
            is_adapter = (folder / ADAPTER_CONFIG).is_file()
            return ResolvedModel(name, folder.resolve(), content_revision(folder), origin) if is_adapter else None
    return None


def _base_of(adapter: ResolvedModel) -> str:
    file = adapter.path / ADAPTER_CONFIG
    try:
        base = json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError):
        base = None
    if not isinstance(base, str) or not base:
        raise ModelError(
            f"adapter {adapter.name!r}: {str(file)!r} has no base_model_name_or_path; expected the name of its base: "
            "save the adapter again with PEFT"
        )
    return base
