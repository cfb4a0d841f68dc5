"""One dimension of a space: the values that one key of the training configuration may take.

Guaranteed: low is below high, a logarithmic scale starts above 0, choices differ from each other. Not guaranteed: that
the key takes these values; `space` tries them on it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Scale = Literal["linear", "log", "choice"]


class _Dimension(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Range(_Dimension):
    low: float
    high: float

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low={self.low:g} is not below high={self.high:g}; swap them, or name the value in train")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(
                f"low={self.low:g} on a logarithmic scale: expected more than 0; raise low, or choose type "
                f"{'uniform' if isinstance(self, LogUniform) else 'int'}"
            )
        return self

    @property
    def scale(self) -> Scale:
        """How the range is divided."""
        return "linear"

    @property
    def ends(self) -> dict[str, Any]:
        """The values to try on the configuration before work starts, by the key that sets them."""
        return {"low": self.low, "high": self.high}

    def grid(self) -> Sequence[Any] | None:
        """All values in order; None where there are endlessly many."""
        return None

    def tidy(self, value: Any) -> Any:
        """A drawn value with four significant digits, inside the range."""
        return min(max(float(f"{value:.4g}"), self.low), self.high)


class Uniform(_Range):
    """Evenly between low and high; with `step` only every so many."""

    type: Literal["uniform"]
    step: float | None = Field(None, gt=0)

    def grid(self) -> Sequence[Any] | None:
        """Every step."""
        if self.step is None:
            return None
        return [self.at(number) for number in range(self.last + 1)]

    def tidy(self, value: Any) -> Any:
        """A drawn value: the nearest step, or one with four significant digits inside the range."""
        return super().tidy(value) if self.step is None else self.at(self.number(value))

    @property
    def last(self) -> int:
        """Number of the last step, from 0."""
        return int((Decimal(repr(self.high)) - Decimal(repr(self.low))) // self._step)

    def at(self, number: int) -> float:
        """The value of a step, as people write it: 0.3, where the sum of 0.1 and 0.2 is another number."""
        return float(Decimal(repr(self.low)) + number * self._step)

    def number(self, value: float) -> int:
        """The step that is nearest to a value."""
        return min(max(round((value - self.low) / float(self._step)), 0), self.last)

    @property
    def _step(self) -> Decimal:
        assert self.step is not None, "a range without steps has none to count"
        return Decimal(repr(self.step))


class LogUniform(_Range):
    """Evenly by order of magnitude."""

    type: Literal["loguniform"]

    @property
    def scale(self) -> Scale:
        """Logarithmic."""
        return "log"


class Int(_Range):
    """Whole numbers from low to high, both included, `step` apart."""

    type: Literal["int"]
    low: int
    high: int
    step: int = Field(1, ge=1)

    def grid(self) -> Sequence[int]:
        """Every step."""
        return range(self.low, self.high + 1, self.step)

    def tidy(self, value: Any) -> Any:
        """The number itself."""
        return int(value)


class LogInt(_Range):
    """Whole numbers from low to high, both included, evenly by order of magnitude."""

    type: Literal["logint"]
    low: int
    high: int

    @property
    def scale(self) -> Scale:
        """Logarithmic."""
        return "log"

    def grid(self) -> Sequence[Any] | None:
        """Low, doubled as often as it stays below high."""
        return list(itertools.takewhile(lambda value: value <= self.high, (self.low << n for n in itertools.count())))

    def tidy(self, value: Any) -> Any:
        """The number itself."""
        return int(value)


class Choice(_Dimension):
    """One of some values, in no order."""

    type: Literal["choice"]
    values: tuple[Any, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _differ(self) -> Self:
        texts = [json.dumps(value, sort_keys=True, default=str) for value in self.values]
        if twice := next((text for place, text in enumerate(texts) if text in texts[:place]), None):
            raise ValueError(f"values holds {twice} twice; name each value once")
        return self

    @property
    def scale(self) -> Scale:
        """No scale: names."""
        return "choice"

    @property
    def ends(self) -> dict[str, Any]:
        """Every value."""
        return {f"values[{place}]": value for place, value in enumerate(self.values)}

    def grid(self) -> Sequence[Any] | None:
        """Every value."""
        return list(self.values)


Dimension = Annotated[Uniform | LogUniform | Int | LogInt | Choice, Field(discriminator="type")]
Point = dict[str, Any]
"""One value for each key of a space."""


def identity(point: Point) -> str:
    """Equal for points that are equal, whatever the order of their keys."""
    return json.dumps(point, sort_keys=True, default=str)
