"""The page asks: answers stream in, their markers open the quoted words, and what is missing or broken is said."""

from __future__ import annotations

import re

import pytest
from page_browser import Visit, ask, begin, until
from page_corpus import BATCHES, CHINESE, SCALING
from page_server import PARTIAL, Failing, Gate, PageServer, chunk, last, quoting
from playwright.sync_api import expect

pytest_plugins = ["page_fixtures"]

FIRST = "Use map_batches to run a function on every batch of a dataset."
SECOND = "[3] lists the formats."
ZH = "用 map_batches 在每一批上运行函数,函数可以在任务或角色中运行。"
BROKEN = [chunk("Serve scales"), {"error": {"message": "the generator died", "type": "server_error"}}, "[DONE]"]


def test_text_is_shown_before_the_answer_ends(visit: Visit, server: PageServer) -> None:
    gate = Gate()
    server.answers["q"] = [chunk(sources=[SCALING.source_line(1)]), chunk("The first words"), gate, last([]), "[DONE]"]
    page = visit()
    begin(page, "q")
    expect(page.locator(".words")).to_have_text("The first words")
    expect(page.locator("#stop")).to_be_visible()
    expect(page.locator(".reply")).to_have_attribute("aria-busy", "true")
    assert not gate.event.is_set()
    server.open(gate)
    expect(page.locator("#send")).to_be_visible()
    expect(page.locator(".reply")).to_have_attribute("aria-busy", "false")


def test_what_is_found_is_told_before_the_first_word(visit: Visit, server: PageServer) -> None:
    gates = [Gate(), Gate()]
    sources = [document.source_line(number) for number, document in enumerate([BATCHES, SCALING], 1)]
    server.answers["q"] = [gates[0], chunk(sources=sources), gates[1], chunk("Words"), last([]), "[DONE]"]
    page = visit()
    begin(page, "q")
    expect(page.locator(".waiting")).to_have_text("Searching")
    server.open(gates[0])
    expect(page.locator(".waiting")).to_have_text("Reading 2 passages")
    server.open(gates[1])
    expect(page.locator(".words")).to_have_text("Words")
    expect(page.locator(".waiting")).to_have_count(0)


def test_a_marker_keeps_the_focus_while_the_answer_grows(visit: Visit, server: PageServer) -> None:
    gate = Gate()
    citation = BATCHES.citation(1, FIRST)
    beginning = [chunk(sources=[BATCHES.source_line(1)]), chunk(f"{FIRST} [1]"), chunk(citation=citation)]
    server.answers["q"] = [*beginning, gate, chunk("\nAnd more."), last([citation]), "[DONE]"]
    page = visit()
    begin(page, "q")
    page.locator(".marker").focus()
    server.open(gate)
    expect(page.locator(".words")).to_contain_text("And more.")
    expect(page.locator("#send")).to_be_visible()
    expect(page.locator(".marker")).to_be_focused()


def test_stop_aborts_the_request_at_the_server(visit: Visit, server: PageServer) -> None:
    server.answers["q"] = [chunk("Some of it"), Gate(), chunk(" and the rest"), last([]), "[DONE]"]
    page = visit()
    begin(page, "q")
    expect(page.locator(".words")).to_have_text("Some of it")
    page.locator("#stop").click()
    expect(page.locator(".notice")).to_have_text("Stopped.")
    until(lambda: server.abandoned == ["q"], page)
    expect(page.locator(".words")).to_have_text("Some of it")
    expect(page.locator("#question")).to_be_focused()


def test_what_was_said_before_a_stop_is_part_of_the_conversation(visit: Visit, server: PageServer) -> None:
    server.answers["q"] = [chunk("Some of it"), Gate()]
    server.answers["silent"] = [Gate()]
    page = visit()
    for question, words in (("q", "Some of it"), ("silent", "")):
        begin(page, question)
        expect(page.locator(".words").last).to_have_text(words)
        page.locator("#stop").click()
        expect(page.locator("#send")).to_be_visible()
    ask(page, "two")
    assert [turn["content"] for turn in server.asked[-1]["messages"]] == ["q", "Some of it", "two"]


def test_an_answer_that_is_taken_whole_is_not_aborted(visit: Visit, server: PageServer) -> None:
    ask(visit(), "q")
    assert server.abandoned == []


def test_a_marker_opens_its_passage_with_exactly_the_quote_highlighted(visit: Visit, server: PageServer) -> None:
    server.answers["q"] = quoting((BATCHES, FIRST), (CHINESE, ZH), (BATCHES, SECOND))
    page = visit()
    ask(page, "q")
    for marker, (document, quote) in enumerate([(BATCHES, FIRST), (CHINESE, ZH), (BATCHES, SECOND)]):
        page.locator(".marker").nth(marker).click()
        assert page.locator("#panel-text").text_content() == document.passage
        assert page.locator("#panel-text mark").all_text_contents() == [quote]
        before = page.locator("#panel-text").evaluate("text => text.querySelector('mark').previousSibling?.data ?? ''")
        assert before == document.text[document.start : document.text.index(quote, document.start)]
        expect(page.locator("#panel-text mark")).to_be_in_viewport()


def test_the_focus_goes_back_to_the_marker_that_was_pressed_last(visit: Visit, server: PageServer) -> None:
    server.answers["q"] = quoting((BATCHES, FIRST), (CHINESE, ZH))
    page = visit()
    ask(page, "q")
    for marker in (0, 1):
        page.locator(".marker").nth(marker).click()
    expect(page.locator(".marker[aria-current]")).to_have_text("[2]")
    page.locator("#panel-close").click()
    expect(page.locator(".marker").nth(1)).to_be_focused()
    expect(page.locator(".marker[aria-current]")).to_have_count(0)


def test_numbers_in_brackets_inside_a_quote_are_no_markers(visit: Visit, server: PageServer) -> None:
    server.answers["q"] = quoting((SCALING, "Serve scales"), (CHINESE, ZH), (BATCHES, SECOND))
    page = visit()
    ask(page, "q")
    assert page.locator(".marker").all_text_contents() == ["[1]", "[2]", "[3]"]
    assert page.locator(".words").text_content() == f"Serve scales [1]\n{ZH} [2]\n{SECOND} [3]"


def test_the_panel_tells_where_the_passage_stands(visit: Visit, server: PageServer) -> None:
    server.answers["q"] = quoting((CHINESE, ZH))
    page = visit()
    ask(page, "q")
    page.locator(".marker").click()
    start = CHINESE.text.index(ZH)
    expect(page.locator("#panel-title")).to_have_text(CHINESE.title)
    expect(page.locator("#panel-facts dd")).to_have_text(
        [CHINESE.heading, "3", CHINESE.source, CHINESE.doc_id, f"{start}–{start + len(ZH)}"]
    )


def test_a_span_that_does_not_cut_its_quote_is_not_highlighted(visit: Visit, server: PageServer) -> None:
    shifted = {**BATCHES.citation(1, FIRST), "start": BATCHES.start + 1}
    server.answers["q"] = [chunk(sources=[BATCHES.source_line(1)]), chunk("Said [1]"), last([shifted]), "[DONE]"]
    page = visit()
    ask(page, "q")
    page.locator(".marker").click()
    expect(page.locator("#panel-text .notice")).to_be_visible()
    expect(page.locator("#panel-text mark")).to_have_count(0)


def test_passages_that_are_not_cited_can_be_read_too(visit: Visit, server: PageServer) -> None:
    server.answers["q"] = quoting((BATCHES, FIRST), others=[SCALING])
    page = visit()
    ask(page, "q")
    page.get_by_text("1 more passage retrieved, not cited").click()
    page.get_by_role("button", name=SCALING.title).click()
    assert page.locator("#panel-text").text_content() == SCALING.passage
    expect(page.locator("#panel-text mark")).to_have_count(0)


def test_a_source_opens_at_its_first_citation(visit: Visit, server: PageServer) -> None:
    server.answers["q"] = quoting((BATCHES, SECOND), (BATCHES, FIRST))
    page = visit()
    ask(page, "q")
    expect(page.locator(".source")).to_have_count(1)
    page.locator(".source").click()
    expect(page.locator("#panel-text mark")).to_have_text(SECOND)


def test_a_further_question_is_asked_with_the_turns_before_it(visit: Visit, server: PageServer) -> None:
    server.answers["one"] = quoting((BATCHES, FIRST))
    server.answers["broken"] = BROKEN
    page = visit()
    for question in ("one", "broken", "two"):
        ask(page, question)
    assert server.asked[-1]["messages"] == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": f"{FIRST} [1]"},
        {"role": "user", "content": "two"},
    ]
    page.get_by_role("button", name="New").click()
    expect(page.locator(".turn")).to_have_count(0)
    ask(page, "three")
    assert server.asked[-1]["messages"] == [{"role": "user", "content": "three"}]


def test_index_and_model_are_those_chosen(visit: Visit, server: PageServer) -> None:
    page = visit()
    ask(page, "q")
    page.locator("#ask-index").select_option("notes")
    page.locator("#ask-model").select_option("reader:support")
    ask(page, "q")
    assert [(body["model"], body["index"]) for body in server.asked] == [
        ("reader", "docs"),
        ("reader:support", "notes"),
    ]
    expect(page.locator("#ask-model option")).to_have_text(["reader", "reader:support"])


def test_an_abstention_is_flagged(visit: Visit, server: PageServer) -> None:
    server.answers["q"] = [chunk("The corpus does not answer this question."), last([]), "[DONE]"]
    page = visit()
    ask(page, "q")
    expect(page.locator(".notice.warn")).to_have_text(re.compile("^Not answered"))


def test_an_answer_that_cannot_be_traced_is_flagged(visit: Visit, server: PageServer) -> None:
    server.answers["q"] = quoting((BATCHES, FIRST), grounded=False)
    page = visit()
    ask(page, "q")
    expect(page.locator(".notice.warn")).to_have_text(re.compile("^Not verified"))


def test_a_degraded_answer_says_what_was_left_out(visit: Visit, server: PageServer) -> None:
    server.answers["q"] = quoting((BATCHES, FIRST), coverage=PARTIAL, degraded=["partition", "rerank"])
    page = visit()
    ask(page, "q")
    expect(page.locator(".notice.warn")).to_have_text(
        [
            "Incomplete Only 75.1 % of the documents were searched: 3 of 4 partitions answered (missing: 2). "
            "The answer may lack what the rest holds.",
            "Degraded Reranking was left out: the passages are in the order of retrieval.",
        ]
    )


def test_an_answer_at_its_limit_of_length_is_flagged(visit: Visit, server: PageServer) -> None:
    server.answers["q"] = [chunk("On and on"), last([], finish_reason="length", grounded=True), "[DONE]"]
    page = visit()
    ask(page, "q")
    expect(page.locator(".notice.warn")).to_have_text(re.compile("^Cut short"))


def test_a_whole_answer_has_no_notice(visit: Visit) -> None:
    page = visit()
    ask(page, "q")
    expect(page.locator(".marker")).to_have_count(1)
    expect(page.locator(".notice")).to_have_count(0)


def test_an_error_in_the_middle_keeps_the_words_and_says_that_they_are_not_all(
    visit: Visit, server: PageServer
) -> None:
    server.answers["q"] = BROKEN
    page = visit()
    ask(page, "q")
    expect(page.locator(".words")).to_have_text("Serve scales")
    box = page.get_by_role("alert").filter(visible=True)
    expect(box).to_contain_text("The answer broke off")
    expect(box).to_contain_text("the generator died")
    expect(box).to_contain_text("Request req-1")
    server.answers["q"] = quoting((BATCHES, FIRST))
    box.get_by_role("button", name="Try again").click()
    expect(page.locator(".marker")).to_have_count(1)
    expect(page.locator(".turn")).to_have_count(1)


def test_a_broken_answer_is_not_waited_for_any_longer(visit: Visit, server: PageServer) -> None:
    server.answers["q"] = [*BROKEN[:2], Gate()]
    page = visit()
    ask(page, "q")
    expect(page.locator(".notice.bad")).to_be_visible()
    until(lambda: server.abandoned == ["q"], page)


def test_a_stream_that_ends_without_its_end_is_an_error(visit: Visit, server: PageServer) -> None:
    server.answers["q"] = [chunk("Some words")]
    page = visit()
    ask(page, "q")
    expect(page.get_by_role("alert").filter(visible=True)).to_contain_text("closed the connection before the end")


@pytest.mark.parametrize(
    ("failing", "said"),
    [
        (Failing(400, "stop has 5 entries, at most 4", "stop"), ["stop has 5 entries", "Field: stop", "Correct it"]),
        (Failing(403, "index 'docs' is not yours"), ["may not do that", "Choose another index"]),
        (Failing(408, "no answer within 30 s"), ["took too long", "Try again"]),
        (Failing(413, "33,000 tokens, at most 32,000"), ["Too large", "Shorten the text"]),
        (Failing(429, "64 requests run", headers={"retry-after": "7"}), ["server is full", "Try again in 7 seconds."]),
        (Failing(503, "coverage 0.5 is below 0.9"), ["Not available now", "coverage 0.5", "Status shows"]),
        (Failing(418, "a teapot"), ["The server answered 418", "a teapot", "Try again."]),
    ],
)
def test_an_error_says_what_to_do(visit: Visit, server: PageServer, failing: Failing, said: list[str]) -> None:
    server.answers["q"] = failing
    page = visit()
    ask(page, "q")
    for words in said:
        expect(page.get_by_role("alert").filter(visible=True)).to_contain_text(words)


def test_what_a_second_try_cannot_help_is_not_offered_again(visit: Visit, server: PageServer) -> None:
    server.answers["q"] = Failing(400, "no", headers={"x-should-retry": "false"})
    page = visit()
    ask(page, "q")
    expect(page.get_by_role("alert").filter(visible=True)).to_be_visible()
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)


def test_a_server_that_is_gone_is_said_to_be(visit: Visit, server: PageServer) -> None:
    page = visit()
    page.context.set_offline(True)
    ask(page, "q")
    expect(page.get_by_role("alert").filter(visible=True)).to_contain_text("The server cannot be reached")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".marker")).to_have_count(1)


def test_copy_takes_the_answer_with_its_sources(visit: Visit, server: PageServer) -> None:
    server.answers["q"] = quoting((BATCHES, FIRST))
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    ask(page, "q")
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"{FIRST} [1]\n\n[1] {BATCHES.title}, {BATCHES.source}"


def test_the_time_of_every_stage_is_drawn_to_scale(visit: Visit) -> None:
    page = visit()
    ask(page, "q")
    legend = page.locator(".legend li").all_text_contents()
    assert legend[:4] == ["total 232 ms", "first word 118 ms", "embed 8.4 ms", "statistics 1.2 ms"]
    assert legend[-3:] == ["rerank 41 ms", "generate 152 ms", "other 8.6 ms"]
    widths = page.locator(".timing .stage").evaluate_all(
        "stages => stages.map(one => one.getBoundingClientRect().width)"
    )
    assert widths[-2] / widths[-3] == pytest.approx(152.3 / 41.0, rel=0.05)
