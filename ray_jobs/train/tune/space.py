"""The space of a search, tried on the training configuration before any trial.

Guaranteed: every key exists, may be searched and takes both ends of its range or each of its choices; each choice is
possible with some values of the other keys; two points are two runs. Not guaranteed: that every combination is
possible; `config_at` says which are not, and whoever draws points leaves those out.
"""

from __future__ import annotations

import copy
import difflib
import itertools
import math
import random
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from ray_jobs.errors import UsageError
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.identity import is_free
from ray_jobs.train.tune.dimensions import Choice, Dimension, Int, Point, Uniform

_COMBINATIONS = 512  # of the ends of other keys that a value is tried with
_GRID = 10_000  # points of a grid
_DRAWS = 2_000  # points inside the ranges, where no combination of ends is possible
# Why a key cannot be searched, where there is more to say than that it changes nothing. Trials of other bases, data or
# methods cannot be compared with each other.
_FIXED = {
    "method": "metrics of different methods cannot be compared; tune each method by itself",
    "base": "trials are compared with each other, and so start from one base; tune each base by itself",
    "data": "trials are compared with each other, and so learn from the same data; tune each data set by itself",
    "name": "all trials are runs of one name; set train.name",
    "store": "all trials are kept in one store; set train.store",
    "replay.data": "trials are compared with each other, and so are reminded of the same rows; set train.replay.data",
    "checkpoints": "trials are evaluated at the same steps, by the same metric; set train.checkpoints",
    "evaluation": "trials are evaluated alike; set train.evaluation",
}


class Space:
    """What is searched, over a training configuration that is otherwise fixed."""

    def __init__(self, fixed: Mapping[str, Any], dimensions: Mapping[str, Dimension]) -> None:
        """Raise UsageError for a key that cannot be searched or does not take a value, and where no point is possible.

        `fixed` is the configuration as a mapping, less what is searched.
        """
        self._fixed = dict(fixed)
        for key in dimensions:
            _check_key(key, str(fixed.get("method")))
        self.dimensions: dict[str, Dimension] = dict(dimensions)
        for key, dimension in dimensions.items():
            self._check_ends(key, dimension)
            self.dimensions[key] = self._as_the_key_takes_it(key, dimension)
        self.example = self._any_config()

    def config_at(self, point: Point) -> TrainConfig | None:
        """The configuration of a trial; None where its values are impossible together."""
        return self._try(point)[0]

    def grid(self) -> list[Point]:
        """Every point that is possible; raises UsageError for a dimension without end."""
        lists = []
        for key, dimension in self.dimensions.items():
            values = dimension.grid()
            if values is None:
                remedy = "a step" if isinstance(dimension, Uniform) else "type choice with values"
                raise UsageError(
                    f"search=grid with space.{key} of type {dimension.type}: it has endlessly many values; give it "
                    f"{remedy}, or set search=random"
                )
            lists.append(values)
        if (count := math.prod(map(len, lists))) > _GRID:
            raise UsageError(
                f"search=grid: the space has {count:,} points, expected {_GRID:,} at most; name fewer values, or set "
                "search=random"
            )
        points = (dict(zip(self.dimensions, values, strict=True)) for values in itertools.product(*lists))
        return [point for point in points if self.config_at(point) is not None]

    def _try(self, point: Point) -> tuple[TrainConfig | None, str, str]:
        """The configuration, or the key that is at fault (empty: several together) and the reason."""
        mapping = copy.deepcopy(self._fixed)
        for key, value in point.items():
            _set(mapping, key, value)
        try:
            return TrainConfig.model_validate(mapping), "", ""
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(part for part in map(str, first["loc"]) if "[" not in part)
            reason = first["msg"].removeprefix("Value error, ")
            alone = first["type"] != "value_error" or place in point
            return None, place if alone else "", reason[:1].lower() + reason[1:]

    def _check_ends(self, key: str, dimension: Dimension) -> None:
        for name, value in dimension.ends.items():
            reasons = []
            for others in self._ends_of_others(key):
                config, place, reason = self._try({**others, key: value})
                if config is not None:
                    break
                if place == key or place.startswith(f"{key}."):
                    raise UsageError(f"space.{key}.{name}={value}: {reason}; change space.{key}.{name}")
                if place and place not in self.dimensions:
                    missing = " is missing" if reason == "field required" else ""
                    raise UsageError(f"train.{place}{missing}: {reason}; see 'tandem train --help'")
                reasons.append(reason)
            else:
                if isinstance(dimension, Choice):
                    raise UsageError(
                        f"space.{key}.{name}={value}: impossible with every value of the other keys ({reasons[0]}); "
                        f"remove it from space.{key}.values"
                    )

    def _ends_of_others(self, key: str) -> Iterator[Point]:
        others = {name: dimension for name, dimension in self.dimensions.items() if name != key}
        lists = [list(dimension.ends.values()) for dimension in others.values()]
        points = (dict(zip(others, values, strict=True)) for values in itertools.product(*lists))
        yield from itertools.islice(points, _COMBINATIONS)

    def _as_the_key_takes_it(self, key: str, dimension: Dimension) -> Dimension:
        """Choices in the key's own type: YAML reads 1e-5 as text."""
        if not isinstance(dimension, Choice):
            return dimension
        values: list[Any] = []
        for place, value in enumerate(dimension.values):
            found = (self.config_at({**others, key: value}) for others in self._ends_of_others(key))
            config = next(config for config in found if config is not None)
            taken = value_at(config.model_dump(mode="json"), key)
            if taken in values:
                raise UsageError(
                    f"space.{key}.values[{place}]={value}: the key takes it for {taken!r}, as it does "
                    f"values[{values.index(taken)}]; name each value once"
                )
            values.append(taken)
        return Choice(type="choice", values=tuple(values))

    def _any_config(self) -> TrainConfig:
        reason = ""
        lists = [list(dimension.ends.values()) for dimension in self.dimensions.values()]
        corners = (dict(zip(self.dimensions, values, strict=True)) for values in itertools.product(*lists))
        for point in itertools.chain(itertools.islice(corners, _COMBINATIONS), self._draws()):
            config, _, reason = self._try(point)
            if config is not None:
                return config
        raise UsageError(f"space: no combination of its values is possible ({reason}); widen the space or change train")

    def _draws(self) -> Iterator[Point]:
        chance = random.Random(0)
        for _ in range(_DRAWS):
            yield {key: _draw(dimension, chance) for key, dimension in self.dimensions.items()}


def _draw(dimension: Dimension, chance: random.Random) -> Any:
    if isinstance(dimension, Choice):
        return chance.choice(dimension.values)
    if isinstance(dimension, Int):
        return chance.randrange(dimension.low, dimension.high + 1, dimension.step)
    return dimension.tidy(chance.uniform(dimension.low, dimension.high))


def keys() -> list[str]:
    """Every dotted key of the training configuration."""
    return list(_keys_of(TrainConfig))


def value_at(mapping: Mapping[str, Any], key: str, absent: Any = None) -> Any:
    """The value of a dotted key; `absent` where the mapping does not set it."""
    found: Any = mapping
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return absent
        found = found[part]
    return found


def _check_key(key: str, method: str) -> None:
    known = keys()
    for place in (key, key.split(".")[0]):
        if place in _FIXED and key in known:
            raise UsageError(f"space.{key} cannot be searched: {_FIXED[place]}")
    if key in known and is_free(key, method):
        # Trials that differ in it alone would be one run, which each of them would train.
        raise UsageError(f"space.{key} cannot be searched: it does not change what is learned; set train.{key}")
    if key not in known:
        close = [found for found in known if found.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
        close += difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        meant = f"did you mean {close[0]}? " if close else ""
        raise UsageError(f"space.{key}: no key of the training configuration; {meant}'tandem train --help' lists them")


def _keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = [
            kind
            for kind in (field.annotation, *get_args(field.annotation))
            if isinstance(kind, type) and issubclass(kind, BaseModel)
        ]
        if inner:
            yield from _keys_of(inner[0], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _set(mapping: dict[str, Any], key: str, value: Any) -> None:
    *blocks, last = key.split(".")
    for block in blocks:
        inner = mapping.get(block)
        # A block that is null or absent comes to be by a key inside it: lora.rank searches over adapters.
        mapping[block] = inner = dict(inner) if isinstance(inner, Mapping) else {}
        mapping = inner
    mapping[last] = value
