"""A search and its training configuration as the user gave them: inline, or in a file.

Guaranteed: paths in it are absolute, so that they mean the same in every trial and in what is written out; a key is not
both fixed and searched.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from ray_jobs.errors import UsageError
from ray_jobs.storage import DEFAULT_STORE, open_storage
from ray_jobs.train.tune.config import TuneConfig
from ray_jobs.train.tune.dimensions import Choice
from ray_jobs.train.tune.space import value_at

_ABSENT = object()
_START = "lora.start"  # the one key that may be searched and whose values may be paths


def training(config: TuneConfig) -> dict[str, Any]:
    """The keys of 'tandem train' that all trials share; raises UsageError for conflicts and a file that is none."""
    if config.train is not None:
        found = copy.deepcopy(config.train)
        for key in config.space:
            if (value := value_at(found, key, _ABSENT)) is not _ABSENT:
                raise UsageError(f"space.{key} and train.{key}={value}: searched and fixed at once; remove one of them")
    else:
        assert config.train_config is not None, "the configuration requires one of both"
        found = _read(config.train_config)
    if isinstance(found.get("name"), str):
        found["store"] = open_storage(str(found.get("store", DEFAULT_STORE))).uri
    _anchor(found, "base", "data")
    _anchor(found.get("lora"), "start")
    _anchor(found.get("replay"), "data")
    _anchor(value_at(found, "evaluation.retained"))
    return found


def anchored(config: TuneConfig) -> TuneConfig:
    """The search with absolute paths among the values of its space."""
    space = dict(config.space)
    if isinstance(found := space.get(_START), Choice):
        # Whether two of them are one folder is told by the space.
        space[_START] = found.model_copy(update={"values": tuple(map(_absolute, found.values))})
    return config.model_copy(update={"space": space})


def _anchor(mapping: Any, *keys: str) -> None:
    """Make those of its values (all without `keys`) absolute that are paths of files or folders, and not names."""
    if not isinstance(mapping, dict):
        return
    for key in keys or mapping:
        if key in mapping:
            mapping[key] = _absolute(mapping[key])


def _absolute(value: Any) -> Any:
    if isinstance(value, str) and (path := Path(value).expanduser()).exists():
        return str(path.absolute())
    return value


def _read(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(path.expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"train_config={path}: {error.strerror}; expected a readable YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"train_config={path}: not YAML ({reason}); expected the keys of 'tandem train'") from None
    if not isinstance(loaded, dict):
        raise UsageError(f"train_config={path}: holds a {type(loaded).__name__}; expected the keys of 'tandem train'")
    return loaded
