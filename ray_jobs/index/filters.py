"""Metadata filters: which rows of a shard pass.

    parse(expression) -> Filter                     see filter_grammar for the language
    evaluate(filter, table, schema) -> bool (rows,)

Fields are the built-in columns (BUILT_IN) and the index's metadata columns; ``metadata.NAME`` is the metadata column
even where a built-in one has the same name.

Guaranteed: two-valued logic. A test of a field without a value is false, and ``not`` is the complement: ``lang !=
'en'``, ``not lang = 'en'`` and ``lang not in ('en')`` pass rows without a language (``exists lang and lang != 'en'``
does not). On a list, ``=`` and ``in`` ask whether the list holds the value, or one of them. Texts are ordered by code
point. Times are ISO 8601 in quotes; one without an offset is UTC.

Not guaranteed: exact comparison of a float column with an integer beyond 2**53.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ray_jobs.corpus.metadata import ARROW_TYPES
from ray_jobs.errors import UsageError
from ray_jobs.index.filter_ast import And, Comparison, Exists, Filter, Membership, Not, Or, Value, children
from ray_jobs.index.filter_grammar import parse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt

__all__ = ["BUILT_IN", "Filter", "check", "evaluate", "fields", "parse"]

BUILT_IN = {"doc_id": "string", "title": "string", "heading": "string", "page": "int", "source": "string"}
"""Columns that every index has, with their types."""

_COMPARE = {
    "=": pc.equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


def fields(filter: Filter) -> frozenset[str]:
    """Names of the fields that ``filter`` asks about."""
    return frozenset(leaf.field for leaf in _leaves(filter))


def check(filter: Filter, schema: Mapping[str, str]) -> None:
    """Raise UsageError, naming field, value and expectation, unless ``filter`` fits the metadata ``schema``.

    ``schema`` maps each metadata column to its type, as in ray_jobs.corpus.metadata. Evaluation checks too; this is
    for telling a user before any work.
    """
    for leaf in _leaves(filter):
        _, kind = _resolve(leaf.field, schema)
        if isinstance(leaf, Comparison):
            _converted(leaf.field, kind, leaf.operator, leaf.value)
        elif isinstance(leaf, Membership):
            for value in leaf.values:
                _converted(leaf.field, kind, "=", value)


def evaluate(filter: Filter, table: pa.Table, schema: Mapping[str, str]) -> npt.NDArray[np.bool_]:
    """Which rows of ``table`` pass: bool (rows,).

    ``table`` has the built-in columns and a struct column ``metadata``; a column of ``schema`` that the struct lacks
    has no value in any row. Raises UsageError as ``check`` does.
    """
    check(filter, schema)
    return _mask(filter, table, schema)


def _mask(node: Filter, table: pa.Table, schema: Mapping[str, str]) -> npt.NDArray[np.bool_]:
    if isinstance(node, Not):
        return ~_mask(node.operand, table, schema)
    if isinstance(node, And):
        return reduce(np.bitwise_and, (_mask(operand, table, schema) for operand in node.operands))
    if isinstance(node, Or):
        return reduce(np.bitwise_or, (_mask(operand, table, schema) for operand in node.operands))
    column, kind = _column(node.field, table, schema)
    if isinstance(node, Exists):
        return _booleans(pc.is_valid(column))
    if isinstance(node, Comparison) and node.operator == "!=":
        return ~_mask(Comparison(node.field, "=", node.value), table, schema)
    if isinstance(node, Membership):
        values = [_converted(node.field, kind, "=", value) for value in node.values]
        return _holds_any(column, kind, values)
    value = _converted(node.field, kind, node.operator, node.value)
    if kind == "list<string>":
        return _holds_any(column, kind, [value])
    if kind == "int" and isinstance(value, float):
        return _compare_integers(column, node.operator, value)
    return _booleans(_COMPARE[node.operator](column, pa.scalar(value, ARROW_TYPES[kind])))


def _holds_any(column: pa.Array, kind: str, values: list[Any]) -> npt.NDArray[np.bool_]:
    if kind == "int":
        # A fraction equals no integer, and neither does a float beyond 64 bits.
        values = [int(value) for value in values if value == math.floor(value) and -(2**63) <= value < 2**63]
    if kind == "float":
        # is_in looks values up by their bits, and minus zero has its own.
        column, values = pc.add(column, 0.0), [value + 0.0 for value in values]
    wanted = pa.array(values, pa.string() if kind == "list<string>" else ARROW_TYPES[kind])
    if kind != "list<string>":
        # Without nulls among the wanted values a null row is in none.
        return _booleans(pc.is_in(column, value_set=wanted))
    passed = np.zeros(len(column), np.bool_)
    held = _booleans(pc.is_in(pc.list_flatten(column), value_set=wanted))
    passed[pc.list_parent_indices(column).to_numpy(zero_copy_only=False)[held]] = True
    return passed


def _compare_integers(column: pa.Array, operator: str, value: float) -> npt.NDArray[np.bool_]:
    """Compare with a fraction without turning 64-bit integers into floats."""
    if operator == "=":
        return _holds_any(column, "int", [value])
    bound = math.ceil(value) if operator in ("<", ">=") else math.floor(value)
    if not -(2**63) <= bound < 2**63:
        everything = (value > 0) == (operator in ("<", "<="))
        return _booleans(pc.is_valid(column)) if everything else np.zeros(len(column), np.bool_)
    return _booleans(_COMPARE[operator](column, pa.scalar(bound, pa.int64())))


def _converted(field: str, kind: str, operator: str, value: Value) -> Any:
    """``value`` as the column's own type."""
    if kind in ("bool", "list<string>") and operator not in ("=", "!="):
        raise UsageError(f"filter: {field} {operator} ...: a {kind} has no order; use =, != or in (...)")
    if kind == "bool":
        if isinstance(value, bool):
            return value
        raise _misfit(field, kind, value, "true or false")
    if kind in ("int", "float"):
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value) if kind == "float" else value
        raise _misfit(field, kind, value, "a number, without quotes")
    if not isinstance(value, str):
        raise _misfit(field, kind, value, "a text in quotes")
    if kind != "timestamp":
        return value
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _misfit(field, kind, value, "a time such as '2024-05-01' or '2024-05-01T12:30:00+02:00'") from None


def _misfit(field: str, kind: str, value: Value, expected: str) -> UsageError:
    return UsageError(f"filter: {field} is of type {kind}, {value!r} does not fit: expected {expected}")


def _resolve(field: str, schema: Mapping[str, str]) -> tuple[str | None, str]:
    """The metadata column (None for a built-in one) and the type that ``field`` names."""
    if field in BUILT_IN:
        return None, BUILT_IN[field]
    for name in (field, field.removeprefix("metadata.")):
        if name in schema:
            return name, schema[name]
    known = ", ".join([*BUILT_IN, *sorted(schema)])
    raise UsageError(f"filter: no field {field!r}; this index has {known}")


def _column(field: str, table: pa.Table, schema: Mapping[str, str]) -> tuple[pa.Array, str]:
    name, kind = _resolve(field, schema)
    if name is None:
        values = table.column(field)
    else:
        structs = table.column("metadata")
        position = structs.type.get_field_index(name)
        if position < 0:
            return pa.nulls(table.num_rows, ARROW_TYPES[kind]), kind
        values = pc.struct_field(structs, [position])
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.ChunkedArray):  # no chunk at all
        values = pa.nulls(table.num_rows, values.type)
    return values.cast(ARROW_TYPES[kind]), kind


def _booleans(mask: pa.Array) -> npt.NDArray[np.bool_]:
    filled: npt.NDArray[np.bool_] = pc.fill_null(mask, False).to_numpy(zero_copy_only=False)
    return np.asarray(filled, np.bool_)


def _leaves(filter: Filter) -> Iterator[Comparison | Membership | Exists]:
    if isinstance(filter, Comparison | Membership | Exists):
        yield filter
    for child in children(filter):
        yield from _leaves(child)
