"""Bars and spans of reports: everything that is shown is also text, and lies within its field."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_browser import Words

from ray_jobs.reporting.bars import Bar, Row, Span, bar_chart, span_chart
from ray_jobs.reporting.charts import Series, line_chart
from ray_jobs.reporting.figures import duration, size

amounts = st.lists(st.just(0.0) | st.floats(1e-3, 1e12), min_size=1, max_size=12)


@given(amounts)
def test_a_bar_is_as_long_as_its_amount(values: list[float]) -> None:
    drawn = bar_chart("t", [Bar(str(n), value, f"figure {n}") for n, value in enumerate(values)], x="rows")
    ends = [float(end) for end in re.findall(r'class="bar" d="M0 500H([\d.]+)"', drawn)]
    held = [value for value in values if value > 0]
    assert len(ends) == len(held)
    assert all(0 <= end <= 1000.1 for end in ends)
    assert all(ends[a] <= ends[b] for a in range(len(held)) for b in range(len(held)) if held[a] <= held[b])
    assert all(f"figure {n}" in Words(drawn).text for n in range(len(values)))


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50), st.floats(0, 2)), max_size=8))
def test_spans_lie_within_their_time(spans: list[tuple[float, float, float]]) -> None:
    row = Row("worker", [Span(start, start + length, weight) for start, length, weight in spans], "1 s")
    drawn = span_chart("t", [row], end=100.0, x="seconds")
    found = re.findall(r'd="M([\d.]+) 500H([\d.]+)"', drawn)
    assert len(found) == len(spans)
    assert all(0 <= float(start) <= float(end) <= 1000.1 for start, end in found)


@given(st.text(max_size=40))
def test_no_text_of_a_bar_becomes_a_tag(text: str) -> None:
    def drawn(word: str) -> list[str]:
        return [tag for tag, _ in Words(bar_chart(word, [Bar(word, 1.0, word, word or "-")], x=word)).tags]

    assert drawn(text + '"<b>') == drawn("word")


def test_charts_of_nothing_say_so() -> None:
    assert "Nothing was counted" in bar_chart("t", [], x="x")
    assert "Nothing was recorded" in span_chart("t", [], end=1.0, x="x")


def test_an_axis_that_doubles_has_equal_steps_and_round_ticks() -> None:
    drawn = line_chart("t", [Series("a", [1, 4, 16], [0.5, 0.7, 0.9])], x="nprobe", y="recall", doubling=True)
    assert re.search(r'd="M0 [\d.]+L500 [\d.]+L1000 [\d.]+"', drawn)
    assert re.findall(r'<span class="x"[^>]*>([^<]*)<', drawn) == ["1", "2", "4", "8", "16"]


def test_a_rate_stands_on_the_axis_of_nought_and_its_key_shows_its_mean() -> None:
    drawn = line_chart("t", [Series("a", [1, 2], [90.0, 100.0], "95 on average")], x="s", y="rate", shown=(0.0,))
    assert re.findall(r'<span class="y"[^>]*>([^<]*)<', drawn)[0] == "0"
    assert "<b>95 on average</b>" in drawn


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (119.9, "119.9 s"), (119.96, "2 min 00 s"), (3599, "59 min 59 s"), (7260, "2 h 01 min")],
)
def test_times_are_as_people_read_them(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(("count", "shown"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2e12, "2.0 TB")])
def test_sizes_are_as_people_read_them(count: float, shown: str) -> None:
    assert size(count) == shown
