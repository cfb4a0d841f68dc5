"""The parts of the page that only compute, in the browser that runs them, against what Python says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_server import TIMINGS, PageServer
from playwright.sync_api import Browser

from ray_jobs.index.filters import fields, parse

pytest_plugins = ["page_fixtures"]

Call = Callable[..., Any]

# Letters, line ends, brackets of markers, characters of two UTF-16 units, ones that join others, ones that hide text.
TEXT = st.text(st.sampled_from("abS .\n[1]é数据库のㅏ\U0001f680\U0001f469\u200d𠮷\u0301\u202e\x00"), max_size=40)
EXAMPLES = settings(max_examples=60)


@pytest.fixture(scope="module")
def call(browser: Browser, running_server: PageServer) -> Iterator[Call]:
    """Calls `call(module, expression, *arguments)`, where the expression names what the module exports."""
    page = browser.new_page()
    page.goto(running_server.url)

    def called(module: str, expression: str, *arguments: Any) -> Any:
        code = (
            f"async (args) => {{ const m = await import('/page/{module}.js'); return await ({expression})(...args); }}"
        )
        return page.evaluate(code, list(arguments))

    yield called
    page.close()


@EXAMPLES
@given(text=TEXT, span=st.tuples(st.integers(0, 45), st.integers(0, 45)))
def test_spans_are_cut_as_python_cuts_them(call: Call, text: str, span: tuple[int, int]) -> None:
    start, end = sorted(span)
    assert call("text", "m.cut", text, start, end) == [text[:start], text[start:end], text[end:]]


@EXAMPLES
@given(text=st.text(max_size=60))
def test_what_is_made_visible_keeps_its_place(call: Call, text: str) -> None:
    shown = call("text", "m.legible", text)
    assert len(shown) == len(text)
    assert all(new == old or old in "\u202d\u202e\x7f" or ord(old) < 32 for old, new in zip(text, shown, strict=True))
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202d\u202e]", shown)


@EXAMPLES
@given(
    events=st.lists(TEXT, max_size=5),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    cuts=st.lists(st.integers(0, 400), max_size=8),
)
def test_events_are_the_same_however_the_bytes_are_cut(
    call: Call, events: list[str], end: str, cuts: list[int]
) -> None:
    lines = [[f"data: {line}" for line in event.split("\n")] for event in events]
    stream = "".join(end.join([": comment", "event: x", *data, end]) for data in lines).encode()
    # A carriage return alone ends a line only once it is known that no line feed follows.
    stream += b": the end\n"
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [list(stream[start:stop]) for start, stop in pairwise(places)]
    code = """async (pieces) => {
      const body = new ReadableStream({
        start(c) { for (const piece of pieces) c.enqueue(new Uint8Array(piece)); c.close(); },
      });
      const events = [];
      for await (const event of m.eventsOf(body)) events.push(event);
      return events;
    }"""
    assert call("events", code, pieces) == events
    assert call("events", code, [[byte] for byte in stream]) == events


def test_lines_of_one_event_are_joined(call: Call) -> None:
    assert call("events", "(text) => new m.EventParser().push(text)", "data: a\ndata:b\ndata\n\ndata: c\n\n") == [
        "a\nb",
        "c",
    ]


@EXAMPLES
@given(quotes=st.lists(st.tuples(TEXT, st.integers(1, 3)), max_size=4))
def test_every_citation_of_a_quoting_answer_has_the_marker_after_its_quote(
    call: Call, quotes: list[tuple[str, int]]
) -> None:
    text, citations, ends = "", [], []
    for position, (quote, number) in enumerate(quotes):
        text += f"{chr(10) * bool(position)}{' '.join(quote.split())} [{number}]"
        ends.append(len(text.encode("utf-16-le")) // 2)
        citations.append({"number": number, "quote": quote, "start": position})
    parts = call("markers", "m.segments", text, citations)
    assert "".join(part["text"] for part in parts) == text
    reached, found = 0, {}
    for part in parts:
        reached += len(part["text"].encode("utf-16-le")) // 2
        if "citation" in part:
            found[reached] = part["citation"]["start"]
    assert found == {end: position for position, end in enumerate(ends)}


@EXAMPLES
@given(text=TEXT, numbers=st.lists(st.integers(1, 2), max_size=3))
def test_the_parts_of_any_answer_joined_are_its_text(call: Call, text: str, numbers: list[int]) -> None:
    citations = [{"number": number, "quote": "a", "start": number} for number in numbers]
    parts = call("markers", "m.segments", text, citations)
    assert "".join(part["text"] for part in parts) == text
    for part in parts:
        assert "citation" not in part or part["text"] == f"[{part['citation']['number']}]"


def test_a_marker_without_a_citation_is_text_and_a_repeated_one_repeats_it(call: Call) -> None:
    citations = [{"number": 2, "quote": "x", "start": 0}, {"number": 2, "quote": "y", "start": 9}]
    parts = call("markers", "m.segments", "A [1], b [2], c [2], d [2].", citations)
    marked = [(part["text"], part["citation"]["start"]) for part in parts if "citation" in part]
    assert marked == [("[2]", 0), ("[2]", 9), ("[2]", 9)]


@EXAMPLES
@given(text=TEXT, query=TEXT)
def test_the_marked_parts_of_a_text_joined_are_the_text(call: Call, text: str, query: str) -> None:
    assert "".join(part["text"] for part in call("words", "m.markWords", text, query)) == text


@pytest.mark.parametrize(
    ("text", "query", "marked"),
    [
        ("Scaling policies of the batches", "the scaled policy batch", ["Scaling", "policies", "batches"]),
        ("量子纠缠是一种现象", "什么是量子纠缠", ["量子纠缠"]),
        ("map_batches(fn)", "batch", ["batches"]),
        ("𠮷野家 𠮷", "𠮷野", ["𠮷野"]),
        ("nothing here", "", []),
    ],
)
def test_words_are_marked_whatever_their_ending(call: Call, text: str, query: str, marked: list[str]) -> None:
    parts = call("words", "m.markWords", text, query)
    assert [part["text"] for part in parts if part["marked"]] == marked


def test_stages_add_up_to_the_total(call: Call) -> None:
    drawn = call("timings", "m.stages", TIMINGS)
    assert "rest" not in str(call("timings", "m.stages", {"embed": 2.0, "rows": 1.0, "retrieve": 3.01, "total": 3.02}))
    assert [part["name"] for part in drawn["parts"]][-4:] == ["retrieve, rest", "rerank", "generate", "other"]
    assert sum(part["ms"] for part in drawn["parts"]) == pytest.approx(TIMINGS["total"])


@pytest.mark.parametrize(
    "timings", [{"total": 5.0}, {"embed": 3.0, "rerank": 1.0}, {"generate": 9.0, "total": 4.0}, {}]
)
def test_stages_that_say_little_are_drawn_too(call: Call, timings: dict[str, float]) -> None:
    drawn = call("timings", "m.stages", timings)
    stages = sum(ms for name, ms in timings.items() if name != "total")
    assert sum(part["ms"] for part in drawn["parts"]) == pytest.approx(max(timings.get("total", 0), stages))


@EXAMPLES
@given(
    values=st.dictionaries(st.text("abq+&=#%数\U0001f680", min_size=1, max_size=5), st.text(min_size=1, max_size=20))
)
def test_a_link_gives_back_what_went_into_it(call: Call, values: dict[str, str]) -> None:
    assert call("address", "(fields) => m.parse('#' + m.format(fields))", values) == values


@EXAMPLES
@given(
    name=st.text(min_size=1, max_size=12) | st.sampled_from(["and", "NOT", "a.b", "a b", 'a"b', "a\\", "年份", "1a"])
)
def test_a_field_is_written_as_the_filter_reads_it(call: Call, name: str) -> None:
    assert fields(parse(f"{call('fields', 'm.written', name)} = 1")) == {name}


@pytest.mark.parametrize(
    ("source", "address"),
    [
        ("https://example.org/a b", "https://example.org/a%20b"),
        ("javascript:alert(1)", None),
        (" java\nscript:alert(1)", None),
        ("data:text/html,x", None),
        ("file:///etc/passwd", None),
        ("corpus/a.pdf", None),
        ("", None),
    ],
)
def test_only_web_addresses_are_followed(call: Call, source: str, address: str | None) -> None:
    assert call("text", "m.webAddress", source) == address


@pytest.mark.parametrize(("share", "shown"), [(1, "100 %"), (0.9999, "99.9 %"), (0.75, "75 %"), (0, "0 %")])
def test_a_share_is_never_rounded_to_the_whole(call: Call, share: float, shown: str) -> None:
    assert call("text", "m.percent", share) == shown
