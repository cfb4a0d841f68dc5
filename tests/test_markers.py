from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.answer.grounding import cited_numbers
from ray_jobs.answer.markers import Marker, MarkerScanner, without_markers

PARTS = st.sampled_from(
    [
        "[1]",
        "[2, 3]",
        "[1;2]",
        "[",
        "]",
        "12",
        " ",
        "\t",
        ",",
        "`",
        "```",
        "\n",
        "a",
        "Ray runs.",
        "[x]",
        "[12345]",
        "[0",
    ]
)
TEXTS = st.lists(PARTS, max_size=14).map("".join)


def scan(*pieces: str) -> list[str | Marker]:
    """What a scanner gives for the pieces, neighbouring texts joined."""
    scanner = MarkerScanner()
    found: list[str | Marker] = []
    for item in [item for piece in pieces for item in scanner.feed(piece)] + list(scanner.finish()):
        if found and isinstance(item, str) and isinstance(found[-1], str):
            found[-1] += item
        else:
            found.append(item)
    return found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Ray runs tasks [1].", ["Ray runs tasks", Marker((1,), " "), "."]),
        ("One[1][2]", ["One", Marker((1,), ""), Marker((2,), "")]),
        ("Two [1, 3; 1]", ["Two", Marker((1, 3), " ")]),
        ("No [x], [12345], [], [1 2]", ["No [x], [12345], [], [1 2]"]),
        ("`values[0]` is first [2]", ["`values[ 0 ]` is first", Marker((2,), " ")]),
        ("```py\na[0]\n```\nYes [1]", ["```py\na[ 0 ]\n```\nYes", Marker((1,), " ")]),
        ("``a`[0]`` is code [1]", ["``a`[ 0 ]`` is code", Marker((1,), " ")]),
        ("It's ` alone\nNext [1]", ["It's ` alone\nNext", Marker((1,), " ")]),
        ("The end  ", ["The end"]),
    ],
)
def test_markers_are_told_from_text_and_from_code(text: str, found: list[str | Marker]) -> None:
    assert scan(text) == found


@given(TEXTS, st.lists(st.integers(0, 60), max_size=8))
def test_how_the_text_is_cut_makes_no_difference(text: str, cuts: list[int]) -> None:
    at = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    assert scan(*(text[start:end] for start, end in pairwise(at))) == scan(text)


@given(TEXTS)
def test_text_between_markers_holds_no_marker(text: str) -> None:
    assert all(not cited_numbers(item) for item in scan(text) if isinstance(item, str))


@given(TEXTS)
def test_nothing_but_markers_and_white_space_is_taken_out_of_the_text(text: str) -> None:
    def kept(text: str) -> list[str]:
        return [character for character in text if character.isalpha() or character in "`\n."]

    assert kept("".join(item for item in scan(text) if isinstance(item, str))) == kept(text)


def test_markers_are_taken_out_with_the_space_before_them() -> None:
    assert without_markers("Ray runs tasks [1], and actors [2, 3].") == "Ray runs tasks, and actors."
