"""Metadata of documents: plain values, typed columns, one JSON form.

Guaranteed: `plain` turns whatever a file format holds into the six column types, flat, without nulls; `merge` is
associative, commutative and idempotent, so the schema of a corpus does not depend on the order or the grouping in
which its parts were seen; every value that took part in an inferred schema fits it. Not guaranteed: that a value fits
a type that a user has set by hand; `coerce` then raises, and never nulls a value silently.

The type of a column is the least upper bound of its values' types:

    int < float < string < list<string>        bool < string        timestamp < string
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import reduce
from typing import Any, Literal, TypeAlias, get_args
from uuid import UUID

import pyarrow as pa

from ray_jobs.errors import TandemError

ColumnType: TypeAlias = Literal["string", "int", "float", "bool", "timestamp", "list<string>"]
Schema: TypeAlias = dict[str, ColumnType]
Value: TypeAlias = str | int | float | bool | datetime | list[str]

COLUMN_TYPES: tuple[ColumnType, ...] = get_args(ColumnType)

_INT64 = range(-(2**63), 2**63)
_TIMESTAMP_KEY = "timestamp"
ARROW_TYPES: Mapping[str, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "list<string>": pa.list_(pa.string()),
}


class MisfitError(TandemError):
    """A value that does not fit the type of its column; costs its document, which goes to the dead letters."""

    def __init__(self, column: str, value: object, expected: str) -> None:
        shown = repr(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        super().__init__(f"metadata column {column!r} holds {shown}, which is not {expected}")
        self.column = column
        self.value = value
        self.expected = expected


def plain(metadata: Mapping[str, object]) -> dict[str, Value]:
    """Flatten and simplify what a reader found, keys sorted.

    Nested objects become dotted keys, lists become lists of strings, nulls and NaN are left out, dates and naive
    times are taken as UTC, integers beyond 64 bits become strings, raw bytes are left out.

    Raises MisfitError for an infinite number, which neither JSON nor a comparison has a use for.
    """
    flat: dict[str, Value] = {}
    for key, value in metadata.items():
        _flatten(clean_text(str(key)), value, flat)
    return dict(sorted(flat.items()))


def clean_text(text: str) -> str:
    """Return `text` without NULs and with lone surrogates replaced, so that UTF-8, Arrow and JSON can all hold it."""
    if "\x00" in text:
        text = text.replace("\x00", "")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def encode(metadata: Mapping[str, Value]) -> str:
    """Return the canonical JSON object of plain metadata: keys sorted, a timestamp as {"timestamp": ISO 8601}."""
    return json.dumps(metadata, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=_encode_timestamp)


def decode(text: str) -> dict[str, Value]:
    """Return the metadata that `encode` wrote."""
    values: dict[str, Any] = json.loads(text)
    return {
        key: datetime.fromisoformat(value[_TIMESTAMP_KEY]) if isinstance(value, dict) else value
        for key, value in values.items()
    }


def infer(rows: Iterable[Mapping[str, Value]]) -> Schema:
    """Return the least schema that holds every row of plain metadata."""
    return reduce(merge, ({key: type_of(value) for key, value in row.items()} for row in rows), {})


def merge(a: Schema, b: Schema) -> Schema:
    """Return the least schema that holds what `a` and `b` hold, columns sorted."""
    return {key: _join(a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys())}


def type_of(value: Value) -> ColumnType:
    """Return the narrowest column type of a plain value."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float"
    if isinstance(value, datetime):
        return "timestamp"
    return "list<string>" if isinstance(value, list) else "string"


def arrow_schema(schema: Schema) -> pa.StructType:
    """Return the Arrow struct of the columns, by name; timestamps are UTC microseconds."""
    return pa.struct([pa.field(key, ARROW_TYPES[schema[key]]) for key in sorted(schema)])


def coerce(metadata: Mapping[str, Value], schema: Schema) -> dict[str, Value]:
    """Return the values in their columns' types; columns without a value are absent.

    Raises MisfitError for a value that does not fit and for a key that the schema lacks.
    """
    fitted: dict[str, Value] = {}
    for key, value in metadata.items():
        if key not in schema:
            raise MisfitError(key, value, f"in the schema ({', '.join(sorted(schema)) or 'which is empty'})")
        fitted[key] = _fit(key, value, schema[key])
    return fitted


def _flatten(key: str, value: object, flat: dict[str, Value]) -> None:
    if isinstance(value, Mapping):
        for inner, item in value.items():
            _flatten(f"{key}.{clean_text(str(inner))}", item, flat)
        return
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        scalars = (_scalar(key, item) for item in value)
        flat[key] = [_as_string(item) for item in scalars if item is not None]
        return
    scalar = _scalar(key, value)
    if scalar is not None:
        flat[key] = scalar


def _scalar(key: str, value: object) -> Value | None:
    match value:
        case None | bytes() | bytearray():
            return None
        case bool():
            return value
        case int():
            return int(value) if value in _INT64 else str(value)
        case float() | Decimal():
            number = float(value)
            if math.isnan(number):
                return None
            if math.isinf(number):
                raise MisfitError(key, value, "a finite number")
            return number
        case datetime():
            # datetime(...) rather than the value: pandas hands out a subclass with nanoseconds.
            aware = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
            return datetime.combine(aware.date(), aware.time(), tzinfo=UTC)
        case date():
            return datetime.combine(value, time(), tzinfo=UTC)
        case time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case UUID():
            return str(value)
        case Mapping() | list() | tuple():
            return clean_text(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str))
        case _:
            return clean_text(str(value))


def _join(a: ColumnType | None, b: ColumnType | None) -> ColumnType:
    if a is None or b is None or a == b:
        found = a or b
        assert found is not None, "a column of a schema has a type"
        return found
    if "list<string>" in (a, b):
        return "list<string>"
    return "float" if {a, b} == {"int", "float"} else "string"


def _fit(key: str, value: Value, wanted: ColumnType) -> Value:
    own = type_of(value)
    if own == wanted:
        return value
    if wanted == "list<string>":
        return [_as_string(value)]
    if wanted == "string" and not isinstance(value, list):
        return _as_string(value)
    if wanted == "float" and own == "int":
        return float(value)  # type: ignore[arg-type]
    if isinstance(value, str):
        return _parse(key, value, wanted)
    if wanted == "int" and isinstance(value, float) and value.is_integer() and int(value) in _INT64:
        return int(value)
    raise MisfitError(key, value, f"a {wanted}")


def _parse(key: str, text: str, wanted: ColumnType) -> Value:
    try:
        if wanted == "int" and int(text) in _INT64:
            return int(text)
        if wanted == "float" and math.isfinite(float(text)):
            return float(text)
        if wanted == "timestamp":
            moment = datetime.fromisoformat(text.strip())
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise MisfitError(key, text, f"a {wanted}") from error
    if wanted == "bool" and text.strip().lower() in ("true", "false"):
        return text.strip().lower() == "true"
    raise MisfitError(key, text, f"a {wanted}")


def _as_string(value: Value) -> str:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case datetime():
            return value.isoformat()
        case _:
            return str(value)


def _encode_timestamp(value: object) -> dict[str, str]:
    if isinstance(value, datetime):
        return {_TIMESTAMP_KEY: value.isoformat()}
    raise MisfitError("?", value, f"one of {', '.join(COLUMN_TYPES)}: pass metadata through plain() first")
