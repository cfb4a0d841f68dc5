from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.corpus.metadata import (
    COLUMN_TYPES,
    MisfitError,
    Schema,
    Value,
    arrow_schema,
    coerce,
    decode,
    encode,
    infer,
    merge,
    plain,
)

SCHEMAS = st.dictionaries(st.sampled_from("abc"), st.sampled_from(COLUMN_TYPES))
VALUES = st.one_of(
    st.text(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.datetimes(timezones=st.just(UTC)),
    st.lists(st.text()),
)
ROWS = st.lists(st.dictionaries(st.sampled_from("abc"), VALUES))


@settings(deadline=None)
@given(SCHEMAS, SCHEMAS, SCHEMAS)
def test_merging_schemas_is_associative(a: Schema, b: Schema, c: Schema) -> None:
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


@settings(deadline=None)
@given(SCHEMAS, SCHEMAS)
def test_merging_schemas_is_commutative_and_idempotent(a: Schema, b: Schema) -> None:
    assert merge(a, b) == merge(b, a)
    assert merge(merge(a, b), b) == merge(a, b)


@settings(deadline=None)
@given(ROWS)
def test_every_row_fits_the_schema_inferred_from_all(rows: list[dict[str, Value]]) -> None:
    schema = infer(rows)
    fitted = [coerce(row, schema) for row in rows]
    assert pa.array(fitted, arrow_schema(schema)).null_count == 0


@settings(deadline=None)
@given(ROWS)
def test_plain_metadata_survives_json(rows: list[dict[str, Value]]) -> None:
    for row in rows:
        assert decode(encode(plain(row))) == plain(row)


@settings(deadline=None)
@given(st.integers(0, 5), ROWS)
def test_schema_does_not_depend_on_grouping(cut: int, rows: list[dict[str, Value]]) -> None:
    assert merge(infer(rows[:cut]), infer(rows[cut:])) == infer(rows)


def test_whole_numbers_and_decimals_make_a_float_column() -> None:
    assert infer([{"a": 1}, {"a": 2.5}]) == {"a": "float"}


def test_anything_with_a_list_makes_a_list_column() -> None:
    schema = infer([{"a": ["x"]}, {"a": 1}])
    assert coerce({"a": 1}, schema) == {"a": ["1"]}


def test_nested_objects_become_dotted_columns_and_nulls_vanish() -> None:
    assert plain({"a": {"b": {"c": 1}, "d": None}, "e": float("nan")}) == {"a.b.c": 1}


def test_lists_hold_strings() -> None:
    assert plain({"a": [1, True, None, {"k": 1}]}) == {"a": ["1", "true", '{"k": 1}']}


def test_dates_and_zones_become_utc() -> None:
    east = timezone(timedelta(hours=2))
    found = plain({"a": date(2024, 1, 2), "b": datetime(2024, 1, 2, 3, tzinfo=east), "c": datetime(2024, 1, 2, 3)})
    assert found == {
        "a": datetime(2024, 1, 2, tzinfo=UTC),
        "b": datetime(2024, 1, 2, 1, tzinfo=UTC),
        "c": datetime(2024, 1, 2, 3, tzinfo=UTC),
    }


def test_a_string_that_looks_like_a_date_stays_a_string() -> None:
    assert infer([plain({"a": "2024-01-02"})]) == {"a": "string"}


def test_an_integer_beyond_64_bits_is_kept_as_a_string() -> None:
    assert plain({"a": 2**63, "b": Decimal("1.5")}) == {"a": str(2**63), "b": 1.5}


@pytest.mark.parametrize(
    ("text", "wanted", "value"),
    [
        ("12", "int", 12),
        ("1e3", "float", 1000.0),
        ("True", "bool", True),
        ("2024-01-02", "timestamp", datetime(2024, 1, 2, tzinfo=UTC)),
    ],
)
def test_a_string_is_parsed_when_its_column_is_set_by_hand(text: str, wanted: str, value: Value) -> None:
    assert coerce({"a": text}, {"a": wanted}) == {"a": value}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("x", "int"),
        ("nan", "float"),
        ("yes", "bool"),
        ("soon", "timestamp"),
        (1.5, "int"),
        (True, "int"),
        (["a"], "int"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_column(value: Value, wanted: str) -> None:
    with pytest.raises(MisfitError, match=rf"'year'.*not a {wanted}"):
        coerce({"year": value}, {"year": wanted})  # type: ignore[dict-item]


def test_an_unknown_column_is_a_misfit() -> None:
    with pytest.raises(MisfitError, match="'b'"):
        coerce({"b": 1}, {"a": "int"})


def test_an_infinite_number_is_a_misfit() -> None:
    with pytest.raises(MisfitError, match="finite"):
        plain({"a": float("inf")})
