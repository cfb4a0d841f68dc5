"""One command from public data to a model: `make recipe-NAME`, or `python -m cluster.recipe NAME`.

A recipe is a YAML file of ray_jobs/train/recipes: the inputs that are made of the folder TANDEM_DATA, and steps, each
the keys of one command of `tandem`. Guaranteed: it runs the commands that a user types, shows each before it runs, and
stops at the first that fails; what is done already is not done again, so that the same command goes on where the last
one stopped.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from cluster import cli
from cluster.settings import read_yaml
from ray_jobs.errors import NotFoundError, TandemError, UsageError
from ray_jobs.storage import DEFAULT_STORE, LocalStorage, open_storage
from ray_jobs.train import recipes

FOLDER = Path(recipes.__file__).parent
DEFAULT_DATA = Path("../shared/data")


class Recipe(BaseModel):
    """What a recipe's file says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    makes: str = Field(description="what comes out")
    inputs: tuple[str, ...] = Field(description="files of ray_jobs/train/recipes/inputs.py")
    steps: tuple[dict[str, dict[str, Any]], ...] = Field(min_length=1, description="command: its keys")


def names() -> list[str]:
    """The recipes that there are."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def read(name: str) -> Recipe:
    """The recipe of that name; raises NotFoundError that lists those there are."""
    if name not in names():
        raise NotFoundError(f"no recipe {name!r}: expected one of {', '.join(names())}")
    return Recipe.model_validate(read_yaml(FOLDER / f"{name}.yaml"))


def steps_of(recipe: Recipe, inputs: Path) -> list[tuple[str, dict[str, Any]]]:
    """Commands with their keys, in order; `{inputs}` in a key's text is the folder of the inputs."""
    found = []
    for step in recipe.steps:
        if len(step) != 1 or next(iter(step)) not in cli.COMMANDS:
            raise UsageError(f"a recipe's step names {', '.join(step)}: expected one of {', '.join(cli.COMMANDS)}")
        ((command, keys),) = step.items()
        found.append((command, _filled(keys, {"{inputs}": str(inputs)})))
    return found


def main(arguments: list[str]) -> int:
    """Make what a recipe describes; returns the exit code of the first step that fails, else 0."""
    from ray_jobs.train.recipes.inputs import write_inputs

    try:
        if len(arguments) != 1:
            raise UsageError(f"usage: python -m cluster.recipe NAME; NAME is one of {', '.join(names())}")
        recipe = read(arguments[0])
        # Not left there: the commands would take it for their key `data`.
        data = Path(os.environ.pop("TANDEM_DATA", "") or DEFAULT_DATA)
        inputs = _inputs_folder()
        write_inputs(data, recipe.inputs, inputs)
        steps = steps_of(recipe, inputs)
    except TandemError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for command, keys in steps:
        print(f"\n$ tandem {command} --config FILE\n{_shown(keys)}", flush=True)
        with tempfile.TemporaryDirectory(prefix="tandem-recipe-") as folder:
            file = Path(folder) / f"{command}.yaml"
            file.write_text(yaml.safe_dump(keys, sort_keys=False), encoding="utf-8")
            code = cli.run([command, "--config", str(file)])
        if code:
            return code
    return 0


def _inputs_folder() -> Path:
    """A folder of this machine for the inputs: the store's, or the default one's where the store is no folder."""
    chosen = open_storage(os.environ.get("TANDEM_STORE") or DEFAULT_STORE)
    local = chosen if isinstance(chosen, LocalStorage) else LocalStorage(Path(DEFAULT_STORE).absolute())
    return local.root / "inputs"


def _filled(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for name, text in names.items():
            value = value.replace(name, text)
        return value
    if isinstance(value, Mapping):
        return {key: _filled(item, names) for key, item in value.items()}
    return [_filled(item, names) for item in value] if isinstance(value, list) else value


def _shown(keys: Mapping[str, Any]) -> str:
    return "\n".join(f"    {line}" for line in yaml.safe_dump(dict(keys), sort_keys=False).splitlines())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
