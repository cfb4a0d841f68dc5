from __future__ import annotations

import operator
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.errors import UsageError
from ray_jobs.index.filter_ast import And, Comparison, Exists, Filter, Membership, Not, Or
from ray_jobs.index.filters import check, evaluate, fields, parse

SCHEMA = {
    "lang": "string",
    "year": "int",
    "price": "float",
    "draft": "bool",
    "seen": "timestamp",
    "tags": "list<string>",
    "author.name": "string",
    "title": "string",
}
ARROW = {
    "lang": pa.string(),
    "year": pa.int64(),
    "price": pa.float64(),
    "draft": pa.bool_(),
    "seen": pa.timestamp("us", tz="UTC"),
    "tags": pa.list_(pa.string()),
    "author.name": pa.string(),
    "title": pa.string(),
}
Row = dict[str, Any]


def table_of(rows: list[Row]) -> pa.Table:
    return pa.table(
        {
            "doc_id": pa.array([row.get("doc_id", "d") for row in rows], pa.string()),
            "title": pa.array([row.get("built_in_title", "") for row in rows], pa.string()),
            "heading": pa.array([row.get("heading", "") for row in rows], pa.string()),
            "page": pa.array([row.get("page") for row in rows], pa.int32()),
            "source": pa.array([row.get("source", "s") for row in rows], pa.string()),
            "metadata": pa.array(
                [{name: row.get(name) for name in SCHEMA} for row in rows], pa.struct(list(ARROW.items()))
            ),
        }
    )


def passing(expression: str, rows: list[Row]) -> list[int]:
    return np.flatnonzero(evaluate(parse(expression), table_of(rows), SCHEMA)).tolist()


words = st.text(st.sampled_from("ab'\"\\ é字𝒳"), max_size=3)
integers = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)
floats = st.floats(allow_nan=False, allow_infinity=False)
moments = st.datetimes(datetime(1990, 1, 1), datetime(1990, 1, 3), timezones=st.just(UTC))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "lang": words,
    "year": integers | floats | st.sampled_from([-0.5, 1.5, 2.0, 1e30, -1e30]),
    "price": st.integers(-3, 3) | floats,
    "draft": st.booleans(),
    "seen": moments.map(lambda moment: moment.isoformat()),
    "tags": words,
    "author.name": words,
}
CELLS: dict[str, st.SearchStrategy[Any]] = {
    "lang": words,
    "year": integers,
    "price": floats | st.integers(-3, 3).map(float) | st.just(float("nan")),
    "draft": st.booleans(),
    "seen": moments,
    "tags": st.lists(words, max_size=3),
    "author.name": words,
}
rows = st.lists(st.fixed_dictionaries({}, optional=CELLS), max_size=8)


@st.composite
def leaves(draw: st.DrawFn) -> Filter:
    field = draw(st.sampled_from(sorted(VALUES)))
    kind = draw(st.sampled_from(["comparison", "membership", "exists"]))
    if kind == "exists":
        return Exists(field)
    if kind == "membership":
        return Membership(field, tuple(draw(st.lists(VALUES[field], min_size=1, max_size=4))))
    ordered = SCHEMA[field] not in ("bool", "list<string>")
    operators = ["=", "!=", "<", "<=", ">", ">="] if ordered else ["=", "!="]
    return Comparison(field, draw(st.sampled_from(operators)), draw(VALUES[field]))  # type: ignore[arg-type]


filters = st.recursive(
    leaves(),
    lambda inner: (
        inner.map(Not)
        | st.lists(inner, min_size=2, max_size=3).map(lambda operands: And(tuple(operands)))
        | st.lists(inner, min_size=2, max_size=3).map(lambda operands: Or(tuple(operands)))
    ),
    max_leaves=6,
)


def holds(node: Filter, row: Row) -> bool:
    """One row at a time, in Python's own logic."""
    if isinstance(node, Not):
        return not holds(node.operand, row)
    if isinstance(node, And):
        return all(holds(operand, row) for operand in node.operands)
    if isinstance(node, Or):
        return any(holds(operand, row) for operand in node.operands)
    cell = row.get(node.field)
    if isinstance(node, Exists):
        return cell is not None
    if isinstance(node, Membership):
        return any(holds(Comparison(node.field, "=", value), row) for value in node.values)
    if node.operator == "!=":
        return not holds(Comparison(node.field, "=", node.value), row)
    if cell is None:
        return False
    if isinstance(cell, list):
        return node.value in cell
    value = datetime.fromisoformat(node.value) if isinstance(cell, datetime) else node.value  # type: ignore[arg-type]
    compare = {"=": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
    return bool(compare[node.operator](cell, value))


@settings(deadline=None)
@given(filters, rows)
def test_a_filter_passes_the_rows_that_a_reading_row_by_row_passes(node: Filter, rows: list[Row]) -> None:
    mask = evaluate(node, table_of(rows), SCHEMA)
    assert mask.dtype == np.bool_
    assert mask.tolist() == [holds(node, row) for row in rows]


@settings(deadline=None)
@given(filters)
def test_a_filter_parses_from_its_own_spelling(node: Filter) -> None:
    assert parse(str(node)) == node


@settings(deadline=None)
@given(st.text(st.sampled_from("ab=<>!'\"()., \n1-e\\字") | st.characters(), max_size=30))
def test_any_text_parses_or_is_refused_as_a_wrong_request(text: str) -> None:
    with suppress(UsageError):
        assert parse(str(parse(text))) == parse(text)


@settings(deadline=None)
@given(filters, rows, st.integers(0, 8))
def test_splitting_the_table_changes_nothing(node: Filter, rows: list[Row], at: int) -> None:
    table = table_of(rows)
    chunked = pa.concat_tables([table.slice(0, at), table.slice(at)])
    assert evaluate(node, chunked, SCHEMA).tolist() == evaluate(node, table, SCHEMA).tolist()


def test_and_binds_tighter_than_or_and_not_tightest() -> None:
    a, b, c = (Comparison(name, "=", 1) for name in "abc")
    assert parse("a = 1 or b = 1 and not c = 1") == Or((a, And((b, Not(c)))))
    assert parse("(a = 1 OR b = 1) AND c = 1") == And((Or((a, b)), c))


def test_fields_may_be_dotted_quoted_or_begin_like_a_keyword() -> None:
    expression = "author.name = 'x' and \"file size\" > 1 and android = true and exists file-type"
    assert fields(parse(expression)) == {"author.name", "file size", "android", "file-type"}


def test_a_missing_value_passes_unequal_and_not_but_no_comparison() -> None:
    rows: list[Row] = [{"lang": "en"}, {"lang": "de"}, {}]
    assert passing("lang = 'en'", rows) == [0]
    assert passing("lang != 'en'", rows) == [1, 2]
    assert passing("lang not in ('en')", rows) == [1, 2]
    assert passing("exists lang and lang != 'en'", rows) == [1]
    assert passing("lang < 'zz' or lang >= 'zz'", rows) == [0, 1]


def test_equality_on_a_list_asks_whether_it_holds_the_value() -> None:
    rows: list[Row] = [{"tags": ["a", "b"]}, {"tags": []}, {"tags": [None, "c"]}, {}]
    assert passing("tags = 'a'", rows) == [0]
    assert passing("tags in ('b', 'c')", rows) == [0, 2]
    assert passing("tags != 'a'", rows) == [1, 2, 3]
    assert passing("exists tags", rows) == [0, 1, 2]


def test_times_with_and_without_offset_are_compared_in_utc() -> None:
    rows: list[Row] = [{"seen": datetime(2024, 5, 1, 10, tzinfo=timezone(timedelta(hours=2)))}]
    assert passing("seen = '2024-05-01T08:00:00'", rows) == [0]
    assert passing("seen >= '2024-05-01' and seen < '2024-05-01T10:01+02:00'", rows) == [0]


def test_a_built_in_column_hides_a_metadata_column_unless_spelled_out() -> None:
    rows: list[Row] = [{"built_in_title": "shown", "title": "stored"}]
    assert passing("title = 'shown'", rows) == [0]
    assert passing("metadata.title = 'stored'", rows) == [0]


def test_pages_compare_as_integers() -> None:
    assert passing("page >= 2 and page < 7.5", [{"page": 1}, {"page": 2}, {"page": 7}, {}]) == [1, 2]


def test_a_column_that_this_shard_lacks_has_no_value() -> None:
    table = table_of([{}, {}]).drop_columns("metadata").append_column("metadata", pa.array([{}, {}], pa.struct([])))
    assert evaluate(parse("exists year or year > 1 or tags = 'a'"), table, SCHEMA).tolist() == [False, False]
    assert evaluate(parse("year != 1"), table, SCHEMA).tolist() == [True, True]


@pytest.mark.parametrize(
    ("expression", "position", "expected"),
    [
        ("", 1, "a field"),
        ("year >", 7, "a number"),
        ("year = 2020 lang = 'en'", 13, "and, or or the end"),
        ("year == 2020", 7, "a number"),
        ("(year = 2020", 13, ")"),
        ("year = 2024-01-01", 8, "a number"),
        ("lang in ()", 10, "a text in quotes"),
        ("lang = 'en", 8, "this quote is never closed"),
        ("语言 = '中文' & x", 11, "and, or or the end"),
        ("year = 99999999999999999999", 8, "at most 64 bits"),
        ("price < 1e999", 9, "at most 1.8e308"),
        ("__import__('os').system('ls')", 11, "one of ="),
    ],
)
def test_a_syntax_error_points_at_its_place(expression: str, position: int, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(expression)
    message, shown, caret = str(caught.value).split("\n")
    assert message.startswith(f"filter, character {position}: ")
    assert expected in message
    assert shown.strip() == expression.strip()
    wide = sum(ord(character) > 0x2E80 for character in expression[: position - 1])
    assert caret.index("^") == 2 + position - 1 + wide


def test_a_long_expression_is_shown_around_the_place_only() -> None:
    with pytest.raises(UsageError) as caught:
        parse(" or ".join(["year = 1"] * 500) + " !")
    _, shown, caret = str(caught.value).split("\n")
    assert len(shown) < 130
    assert shown[caret.index("^")] == "!"


def test_endless_nesting_is_refused() -> None:
    with pytest.raises(UsageError, match="nested deeper"):
        parse("not " * 20_000 + "year = 1")


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("yaer = 1", r"no field 'yaer'; this index has doc_id, .*year"),
        ("year > 'abc'", r"year is of type int, 'abc' does not fit: expected a number"),
        ("year = true", r"year is of type int, True does not fit"),
        ("lang = 7", r"lang is of type string, 7 does not fit: expected a text in quotes"),
        ("draft = 'yes'", r"draft is of type bool, 'yes' does not fit: expected true or false"),
        ("draft < true", r"draft < ...: a bool has no order"),
        ("tags >= 'a'", r"tags >= ...: a list<string> has no order"),
        ("seen > 'yesterday'", r"seen is of type timestamp, 'yesterday' does not fit: expected a time such as"),
        ("lang in ('a', 3)", r"lang is of type string, 3 does not fit"),
    ],
)
def test_a_filter_that_does_not_fit_the_schema_is_refused_with_field_value_and_expectation(
    expression: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        check(parse(expression), SCHEMA)
    with pytest.raises(UsageError, match=message):
        evaluate(parse(expression), table_of([]), SCHEMA)
