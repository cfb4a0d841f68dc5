"""The page searches: what is sent is what was chosen, hits show why they were found, and filters are helped with."""

from __future__ import annotations

import pytest
from page_browser import Visit, search, until
from page_corpus import BATCHES, CHINESE, SCALING
from page_server import MODELS, PARTIAL, Failing, PageServer, found
from playwright.sync_api import Route, expect

pytest_plugins = ["page_fixtures"]


def test_what_is_sent_is_what_was_chosen(visit: Visit, server: PageServer) -> None:
    page = visit("#tab=search")
    page.locator("#search-index").select_option("notes")
    page.locator("#mode").select_option("lexical")
    page.locator("#k").fill("3")
    page.locator("#by").select_option("chunk")
    page.locator("#rerank").check()
    page.locator("#where").fill("lang = 'en'")
    search(page, "batches")
    assert server.asked == [
        {
            "path": "/v1/search",
            "query": "batches",
            "index": "notes",
            "mode": "lexical",
            "k": 3,
            "by": "chunk",
            "where": "lang = 'en'",
            "rerank": True,
        }
    ]


def test_without_a_reranker_there_is_nothing_to_choose(visit: Visit, server: PageServer) -> None:
    server.models = [model for model in MODELS if model["kind"] != "reranker"]
    page = visit()
    search(page, "batches")
    expect(page.locator("#rerank")).to_be_hidden()
    assert "rerank" not in server.asked[0]
    assert "where" not in server.asked[0]


def test_a_hit_shows_its_text_its_place_and_its_metadata(visit: Visit) -> None:
    page = visit()
    search(page, "nothing of it")
    hit = page.locator(".hit").first
    expect(page.locator(".summary")).to_have_text("3 hits in docs, snapshot 7")
    assert hit.locator(".excerpt").text_content() == BATCHES.passage
    expect(hit.locator(".place > *")).to_have_text([BATCHES.heading, "p. 12", BATCHES.source])
    expect(hit.locator(".tags li")).to_have_text(["lang en", "year 2025", "tags data, guide"])


def test_scores_of_a_stage_are_drawn_against_the_best(visit: Visit) -> None:
    page = visit()
    search(page, "batches")
    scores = page.locator(".hit").nth(1).locator(".scores > div")
    assert scores.all_text_contents() == ["score0.450", "dense0.442", "lexical–", "rerank−1.800"]
    shares = (
        page.locator(".hit")
        .nth(1)
        .locator(".gauge > span")
        .evaluate_all(
            "bars => bars.map(bar => bar.getBoundingClientRect().width / bar.parentNode.getBoundingClientRect().width)"
        )
    )
    assert shares == pytest.approx([0.4417 / 0.7123, (-1.8 + 6.25) / (4.3 + 6.25)], abs=0.02)


def test_words_of_the_query_are_marked(visit: Visit) -> None:
    page = visit()
    search(page, "how to scale a Batch 批处理")
    words = page.locator(".hit mark.word")
    assert {word.lower() for word in words.all_text_contents()} == {"batch", "batches", "scales", "scaling", "批处理"}


def test_a_hit_opens_in_the_panel(visit: Visit) -> None:
    page = visit()
    search(page, "batches")
    page.get_by_role("button", name=CHINESE.title).click()
    assert page.locator("#panel-text").text_content() == CHINESE.passage
    expect(page.locator("#panel-facts dt").filter(has_text="lang")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name=CHINESE.title)).to_be_focused()


def test_only_web_addresses_are_links(visit: Visit) -> None:
    page = visit()
    search(page, "batches")
    for document, links in ((BATCHES, [BATCHES.source]), (SCALING, [])):
        page.get_by_role("button", name=document.title).click()
        assert page.locator("#panel a").evaluate_all("links => links.map(link => link.href)") == links


def test_no_hits_say_what_to_try(visit: Visit, server: PageServer) -> None:
    server.searches["nothing"] = found([])
    page = visit()
    search(page, "nothing")
    expect(page.locator(".summary")).to_have_text("Nothing found in docs, snapshot 7")
    expect(page.locator("#results .empty")).to_be_visible()


def test_a_degraded_search_is_flagged(visit: Visit, server: PageServer) -> None:
    server.searches["q"] = found([BATCHES.hit(1, {"dense": 0.5})], coverage=PARTIAL, degraded=["partition", "rerank"])
    page = visit()
    search(page, "q")
    expect(page.locator(".notice.warn")).to_have_count(2)
    expect(page.locator(".notice.warn").first).to_contain_text("Only 75.1 % of the documents were searched")


def test_a_filter_that_does_not_parse_is_named(visit: Visit, server: PageServer) -> None:
    server.searches["q"] = Failing(400, "filter: expected a value, at the ^ in: lang = ^and", "where")
    page = visit()
    search(page, "q")
    expect(page.locator("#results .said")).to_have_text("filter: expected a value, at the ^ in: lang = ^and")
    expect(page.locator("#results code")).to_have_text("where")


def test_fields_of_the_index_are_offered_for_the_filter(visit: Visit) -> None:
    page = visit("#tab=search")
    names = page.locator(".field bdi").all_text_contents()
    assert names[:5] == ["lang", "year", "tags", "metadata.title", "review date"]
    expect(page.locator("#where")).to_have_attribute("placeholder", "lang = '…' and year >= 1")
    page.locator(".field").filter(has_text="review date").click()
    expect(page.locator("#where")).to_be_focused()
    page.keyboard.type("> '2026' and")
    page.locator(".field").filter(has_text="year").click()
    expect(page.locator("#where")).to_have_value("\"review date\" > '2026' and year ")
    page.locator("#search-index").select_option("notes")
    expect(page.locator(".field bdi")).to_have_text(["doc_id", "title", "heading", "page", "source"])


def test_the_hits_are_those_of_the_last_search(visit: Visit, server: PageServer) -> None:
    page = visit("#tab=search")
    held: list[Route] = []
    failed: list[str] = []
    page.route("**/v1/search", lambda route: held.append(route))
    page.on("requestfailed", lambda request: failed.append(request.post_data_json["query"]))
    for position, query in enumerate(["first", "second"], 1):
        page.locator("#query").fill(query)
        page.locator("#query").press("Enter")
        until(lambda count=position: len(held) == count, page)
    until(lambda: failed == ["first"], page)
    expect(page.locator("#results")).to_have_attribute("aria-busy", "true")
    expect(page.locator(".notice.bad")).to_have_count(0)
    held[1].fulfill(json=found([SCALING.hit(1, {"dense": 0.5})]))
    held[0].fulfill(json=found([BATCHES.hit(1, {"dense": 0.5}), CHINESE.hit(2, {"dense": 0.4})]))
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false")
    expect(page.locator(".hit .open")).to_have_text([SCALING.title])


def test_a_link_shows_the_search_of_its_sender(visit: Visit, server: PageServer) -> None:
    page = visit("#tab=search")
    page.locator("#mode").select_option("dense")
    page.locator("#k").fill("5")
    search(page, "50% of C++ & 批处理 #1")
    fragment = page.evaluate("location.hash")
    other = visit(fragment)
    expect(other.locator(".hit")).to_have_count(3)
    expect(other.locator("#query")).to_have_value("50% of C++ & 批处理 #1")
    assert server.asked[0] == server.asked[1]
    assert other.evaluate("location.hash") == fragment


def test_back_leads_to_the_view_before(visit: Visit, server: PageServer) -> None:
    page = visit()
    search(page, "batches")
    page.locator("[data-tab=status]").click()
    expect(page.locator("#status")).to_be_visible()
    page.go_back()
    expect(page.locator("#search")).to_be_visible()
    expect(page.locator(".hit")).to_have_count(3)
    page.go_back()
    expect(page.locator("#ask")).to_be_visible()
    assert len(server.asked) == 1


def test_a_link_names_the_question_and_does_not_ask_it(visit: Visit, server: PageServer) -> None:
    page = visit("#tab=ask&q=Why%3F&index=notes&model=reader:support")
    expect(page.locator("#question")).to_have_value("Why?")
    expect(page.locator("#ask-index")).to_have_value("notes")
    expect(page.locator("#ask-model")).to_have_value("reader:support")
    until(lambda: "/v1/models" in server.fetched, page)
    assert server.asked == []


@pytest.mark.parametrize("fragment", ["#tab=constructor", "#tab=%E0%A4%A", "#&&==&tab", "#index=none&model=none&k=x"])
def test_a_broken_link_shows_the_page(visit: Visit, fragment: str) -> None:
    page = visit(fragment)
    expect(page.locator("#ask")).to_be_visible()
    expect(page.locator("#ask-index")).to_have_value("docs")
