from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.answer.stops import StopFilter

TEXTS = st.text("ab\n", max_size=20)
STOPS = st.lists(st.text("ab\n", max_size=4), max_size=4)


def cut(text: str, at: Sequence[int]) -> list[str]:
    marks = sorted({0, len(text), *(position for position in at if position < len(text))})
    return [text[start:end] for start, end in pairwise(marks)]


def first_stop(text: str, stops: Sequence[str]) -> int | None:
    """Where the first complete stop string begins, found letter by letter."""
    for end in range(1, len(text) + 1):
        starts = [end - len(stop) for stop in stops if stop and text[:end].endswith(stop)]
        if starts:
            return min(starts)
    return None


@given(TEXTS, STOPS, st.lists(st.integers(1, 20), max_size=6))
def test_the_text_before_the_first_complete_stop_string_comes_out(text: str, stops: list[str], at: list[int]) -> None:
    stopper = StopFilter(stops)
    out = "".join(stopper.feed(piece) for piece in cut(text, at))
    start = first_stop(text, stops)
    assert stopper.stopped == (start is not None)
    assert out + stopper.finish() == (text if start is None else text[:start])


def test_the_beginning_of_a_stop_string_waits_for_its_end() -> None:
    stopper = StopFilter(["END", "ND."])
    assert [stopper.feed(piece) for piece in ("abE", "N", "x E", "ND. more")] == ["ab", "", "ENx ", ""]
    assert stopper.stopped


@pytest.mark.parametrize("stops", [(), ("",)])
def test_without_stop_strings_nothing_is_held_back(stops: tuple[str, ...]) -> None:
    assert StopFilter(stops).feed("Ray\n") == "Ray\n"
