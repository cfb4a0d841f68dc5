"""Amounts over time: nothing is lost, and memory does not grow with the time."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ray_jobs.ingest.timeline import BINS, Timeline

pieces = st.lists(
    st.tuples(st.floats(0, 1e6), st.floats(0, 1e4), st.floats(0.001, 1e6)), min_size=1, max_size=30
)  # start, how long, amount


@example([(0.0, 5e-324, 1.5)])
@given(pieces)
def test_what_was_added_is_all_there(added: list[tuple[float, float, float]]) -> None:
    line = Timeline()
    for start, length, amount in added:
        line.add("documents", start, start + length, amount)
    assert line.total("documents") == pytest.approx(sum(amount for *_, amount in added))
    xs, ys = line.rates("documents")
    assert len(xs) <= BINS
    assert sum(ys) * line.width == pytest.approx(line.total("documents"))
    first, last = min(start for start, *_ in added), max(start + length for start, length, _ in added)
    assert xs[0] - line.width / 2 <= first
    assert xs[-1] + line.width / 2 >= last * (1 - 1e-9)


def test_an_amount_is_spread_over_the_time_that_it_took() -> None:
    line = Timeline(width=1.0)
    line.add("chunks", 2.0, 6.0, 8.0)
    assert line.rates("chunks") == ([2.5, 3.5, 4.5, 5.5], [2.0, 2.0, 2.0, 2.0])


def test_a_time_in_which_nothing_was_made_has_the_rate_nought() -> None:
    line = Timeline(width=1.0)
    line.add("chunks", 0.0, 1.0, 3.0)
    line.add("chunks", 3.0, 3.5, 4.0)
    assert line.rates("chunks")[1] == [3.0, 0.0, 0.0, 4.0]
