"""The parts of a metadata filter: what is asked of one row.

Guaranteed: frozen, comparable, hashable; ``str`` gives an expression that parses to an equal filter, which is also
how a filter is written into JSON. Not guaranteed: that the fields exist or that the values fit them; evaluation checks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Value = str | int | float | bool
Operator = Literal["=", "!=", "<", "<=", ">", ">="]

KEYWORDS = ("and", "or", "not", "in", "exists", "true", "false")
BARE_FIELD = re.compile(r"[^\W\d][\w./-]*")


@dataclass(frozen=True)
class Comparison:
    """``field operator value``; false where the field has no value, except ``!=``, which is ``not field = value``."""

    field: str
    operator: Operator
    value: Value

    def __str__(self) -> str:
        return f"{_field(self.field)} {self.operator} {_literal(self.value)}"


@dataclass(frozen=True)
class Membership:
    """``field in (values)``; false where the field has no value."""

    field: str
    values: tuple[Value, ...]

    def __str__(self) -> str:
        return f"{_field(self.field)} in ({', '.join(map(_literal, self.values))})"


@dataclass(frozen=True)
class Exists:
    """``exists field``: the field has a value, be it an empty text or an empty list."""

    field: str

    def __str__(self) -> str:
        return f"exists {_field(self.field)}"


@dataclass(frozen=True)
class Not:
    """The rows that ``operand`` leaves out, those without a value included."""

    operand: Filter

    def __str__(self) -> str:
        return f"not ({self.operand})"


@dataclass(frozen=True)
class And:
    """Every operand holds."""

    operands: tuple[Filter, ...]

    def __str__(self) -> str:
        return " and ".join(f"({operand})" for operand in self.operands)


@dataclass(frozen=True)
class Or:
    """At least one operand holds."""

    operands: tuple[Filter, ...]

    def __str__(self) -> str:
        return " or ".join(f"({operand})" for operand in self.operands)


Filter = Comparison | Membership | Exists | Not | And | Or


def children(node: Filter) -> tuple[Filter, ...]:
    """The filters directly inside ``node``."""
    if isinstance(node, And | Or):
        return node.operands
    return (node.operand,) if isinstance(node, Not) else ()


def _field(name: str) -> str:
    return name if BARE_FIELD.fullmatch(name) and name.lower() not in KEYWORDS else _literal(name)


def _literal(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return repr(value)
