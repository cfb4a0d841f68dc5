"""A model that is an adapter (PEFT) of another: which folder it lies in, and which base it belongs to.

Guaranteed: the base is looked for in the same places as any model, by the name in `adapter_config.json`; only weights
in safetensors are accepted. Not guaranteed: that base and adapter fit each other; whoever loads them sees.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ray_jobs.errors import ModelError, NotFoundError
from ray_jobs.models.resolve import ResolvedModel, resolve
from ray_jobs.storage import Storage

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


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
    def folder(self) -> Path:
        """The folder that was asked for."""
        return (self.adapter or self.base).path

    @property
    def revision(self) -> str:
        """Identifies the content of base and adapter."""
        return self.base.revision if self.adapter is None else f"{self.base.revision}+{self.adapter.revision}"


def resolve_adapted(name: str, store: Storage | None = None) -> AdaptedModel:
    """Find the folder of `name` and, if it is an adapter, that of its base.

    Raises NotFoundError saying where it looked, ModelError for a folder that holds neither.
    """
    return with_base(resolve(name, store), store)


def with_base(found: ResolvedModel, store: Storage | None = None) -> AdaptedModel:
    """A model with its base, if it is an adapter; raises NotFoundError where no place has that base."""
    if not (found.path / ADAPTER_CONFIG).is_file():
        return AdaptedModel(found, None)
    base = _base_of(found)
    if not (found.path / ADAPTER_WEIGHTS).is_file():
        raise ModelError(
            f"adapter {found.name!r} in {str(found.path)!r} has no {ADAPTER_WEIGHTS}: save it again as safetensors"
        )
    try:
        return AdaptedModel(resolve(base, store), found)
    except NotFoundError as error:
        raise NotFoundError(f"adapter {found.name!r} needs its base: {error}") from error


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
