"""`tandem models list|info|merge|export`: look after the models of a store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import CliPositionalArg

from cluster.settings import Command, show
from ray_jobs.storage import DEFAULT_STORE, Storage, open_storage

if TYPE_CHECKING:
    from ray_jobs.models.stored import StoredModel


class ModelsCommand(Command):
    """Look after the models of a store, and those that Tandem carries: list, show, merge into the base, or take out."""

    action: CliPositionalArg[Literal["list", "info", "merge", "export"]] = Field(description="what to do")
    name: CliPositionalArg[str | None] = Field(None, min_length=1, description="name of the model")
    store: str = Field(DEFAULT_STORE, description="path or URI of the store")
    as_name: str | None = Field(None, description="merge: name of the model that comes out, in float32")
    to: Path | None = Field(None, description="export: the folder to write, which must not exist")
    compact: bool = Field(
        False, description="export: an adapter's weights in half precision, without a tokeniser that its base has"
    )

    @model_validator(mode="after")
    def _names_what_it_needs(self) -> Self:
        if self.action == "list" and self.name is not None:
            raise ValueError("list shows every model of the store; for one of them: tandem models info NAME")
        if self.action != "list" and self.name is None:
            raise ValueError(f"{self.action} needs the name of a model; 'tandem models list' shows them")
        for action, key, value in (("merge", "as", self.as_name), ("export", "to", self.to)):
            if self.action == action and value is None:
                raise ValueError(f"{action} needs --{key}: tandem models {action} {self.name} --{key} ...")
            if self.action != action and value is not None:
                raise ValueError(f"{key}={value} with {self.action}: only {action} takes it")
        if self.compact and self.action != "export":
            raise ValueError(f"compact=true with {self.action}: only export takes it")
        return self


def run(command: ModelsCommand) -> None:
    """Do what was asked for."""
    from ray_jobs.models import exporting, stored

    storage = open_storage(command.store)
    if command.action == "list":
        _list(storage, command.json_output)
        return
    assert command.name is not None, "the model requires it"
    if command.action == "info":
        _info(storage, command.name, command.json_output)
    elif command.action == "merge":
        assert command.as_name is not None, "the model requires it"
        made = stored.merged(storage, command.name, command.as_name)
        show(json.dumps(made.to_dict(), indent=1) if command.json_output else _line(made))
    else:
        assert command.to is not None, "the model requires it"
        folder = exporting.export(storage, command.name, command.to, compact=command.compact)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        found = {"name": command.name, "folder": str(folder), "bytes": size}
        show(json.dumps(found, indent=1) if command.json_output else f"{folder}  {_size(size)}")


def _list(storage: Storage, as_json: bool) -> None:
    from ray_jobs.models import stored

    found = stored.models(storage)
    if as_json:
        show(json.dumps([item.to_dict() for item in found], indent=1))
        return
    for item in found:
        show(_line(item))
    if not found:
        show(f"no model in {storage.uri}/models; make one with 'tandem train --config FILE'")


def _line(item: StoredModel) -> str:
    if item.problem is not None:
        return f"{item.name:<24} damaged: {item.problem}"
    value = "" if item.value is None else f"{item.metric} {item.value:.4g}"
    return (
        f"{item.name:<24} {item.kind or '?':<9} {item.form or '?':<7} {_size(item.bytes):>9}  {value:<20} "
        f"{item.created or '':<20} {item.base or ''}{' (shipped)' if item.origin == 'shipped' else ''}"
    ).rstrip()


def _info(storage: Storage, name: str, as_json: bool) -> None:
    from ray_jobs.models import stored

    item, card = stored.described(storage, name)
    if as_json:
        show(json.dumps({**item.to_dict(), "card": card}, indent=1))
        return
    base, data = card.get("base") or {}, card.get("data") or {}
    metrics = ", ".join(f"{key} {value:.4g}" for key, value in sorted((card.get("metrics") or {}).items()))
    lines = {
        "model": f"{item.name}, {item.kind or 'of unknown kind'}, {item.form}, {_size(item.bytes)}",
        "base": f"{item.base} (revision {base.get('revision')})" if base else item.base,
        "merged": card.get("merged_from") and f"from {card['merged_from']}",
        "data": data and f"{data.get('name')} (hash {data.get('hash')})",
        "method": card.get("method"),
        "run": card.get("run") and f"{card['run']}, step {card.get('step')}",
        "metrics": metrics,
        "threshold": card.get("threshold"),
        "made": item.created,
    }
    for key, value in lines.items():
        if value not in (None, "", {}):  # a threshold of 0 is one
            show(f"{key:<10} {value}")
    for row in card.get("evaluation") or ():
        change = f"{row['before']:.4g} -> {row['after']:.4g} ({row['low']:+.4g} to {row['high']:+.4g})"
        show(f"{row['role']:<10} {row['set']}: {row['metric']} {change}, {row['rows']:,} rows")
    for place, line in enumerate(_settings(card)):
        show(f"{'' if place else 'config':<10} {line}")
    if not card:
        show("(no card: this model was not made by 'tandem train')")


def _settings(card: Mapping[str, Any]) -> Iterator[str]:
    """How it was trained, a line for what stands alone and one a group; what is said above or was not set is not."""
    from ray_jobs.train.methods import METHODS

    config: Mapping[str, Any] = card.get("config") or {}
    above = {"name", "method", "base", "data"}
    known = {key: value for key, value in config.items() if key not in above and value not in (None, {}, [])}
    if alone := {key: value for key, value in known.items() if not isinstance(value, dict)}:
        yield _pairs(alone)
    for key, group in known.items():
        if isinstance(group, dict) and (key not in METHODS or key == card.get("method")):
            yield f"{key}: {_pairs({name: value for name, value in group.items() if value not in (None, {}, [])})}"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={json.dumps(value)}" for name, value in values.items())


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
