"""The page on the API itself, over a backend without models: both mean the same by every field."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fake_backend import PARTIAL, TEXTS, FakeBackend, describe_index, quote
from live_api import LiveApi, live
from page_browser import Visit, ask, begin, search
from playwright.sync_api import Page, expect
from waiting import wait_for

from ray_jobs.answer.protocol import TextDelta
from serve.api.config import ApiConfig, TenantConfig
from serve.api.keys import new_key

pytest_plugins = ["page_fixtures"]

KEY, HASH = new_key()
QUOTE = TEXTS[0].split(".")[0] + "."


@pytest.fixture
def api() -> Iterator[LiveApi]:
    with live(config=ApiConfig(tenants={"reader": TenantConfig(keys=(HASH,))}, description_s=0)) as api:
        yield api


@pytest.fixture
def page(api: LiveApi, visit: Visit) -> Page:
    return visit(f"#key={KEY}", at=f"http://127.0.0.1:{api.port}/")


def test_an_answer_is_asked_for_and_cited(page: Page, api: LiveApi) -> None:
    ask(page, "What is written last?")
    expect(page.locator(".words")).to_have_text(f"{QUOTE} [1]")
    page.locator(".marker").click()
    assert page.locator("#panel-text mark").all_text_contents() == [QUOTE]
    assert page.locator("#panel-text").text_content() == TEXTS[0]
    expect(page.locator(".foot")).to_contain_text("base · docs, snapshot 7")
    expect(page.locator(".legend")).to_contain_text("judge 1.0 ms")
    expect(page.locator(".notice")).to_have_count(0)
    ask(page, "And then?")
    assert [message.content for message in api.backend.condenses[0].messages][::2] == [
        "What is written last?",
        "And then?",
    ]


def test_index_and_model_that_are_chosen_are_used(page: Page, api: LiveApi) -> None:
    page.locator("#ask-index").select_option("other")
    page.locator("#ask-model").select_option("base:polite")
    ask(page, "q")
    expect(page.locator(".marker")).to_have_count(1)
    assert (api.backend.searches[0].index, api.backend.generations[0].request.model) == ("other", "base:polite")


def test_stop_ends_the_generation(page: Page, api: LiveApi) -> None:
    api.backend.script = lambda call: [TextDelta("Some words"), 60.0, *quote(call)]
    begin(page, "q")
    expect(page.locator(".words")).to_have_text("Some words")
    page.locator("#stop").click()
    wait_for(lambda: api.backend.closed == 1)


def test_an_abstention_and_missing_partitions_are_flagged(page: Page, api: LiveApi) -> None:
    api.backend.coverage = PARTIAL
    api.backend.script = lambda call: quote(type(call)(call.request, call.question, (), call.budget_s))
    ask(page, "q")
    expect(page.locator(".notice.warn strong")).to_have_text(["Not answered", "Incomplete"])


def test_a_generator_that_fails_in_the_middle_is_told(page: Page, api: LiveApi) -> None:
    api.backend.script = lambda call: [TextDelta("Some words"), 0.3, RuntimeError("a defect")]
    ask(page, "q")
    expect(page.locator(".notice.bad")).to_contain_text("The answer broke off")
    expect(page.locator(".words")).to_have_text("Some words")


def test_a_search_is_what_was_chosen(page: Page, api: LiveApi) -> None:
    page.locator("[data-tab=search]").click()
    page.locator("#mode").select_option("lexical")
    page.locator("#by").select_option("chunk")
    page.locator("#k").fill("2")
    page.locator("#rerank").check()
    page.locator("#where").fill("lang = 'en'")
    search(page, "manifest")
    expect(page.locator(".hit")).to_have_count(2)
    expect(page.locator(".hit").first.locator(".scores dt")).to_have_text(["score", "dense", "lexical", "rerank"])
    call = api.backend.searches[0]
    assert (call.config.mode, call.config.by, call.config.where) == ("lexical", "chunk", "lang = 'en'")
    page.locator("#where").fill("lang = and")
    page.locator("#query").press("Enter")
    expect(page.locator(".notice.bad code")).to_have_text("where")


def test_what_is_served_is_shown(page: Page, api: LiveApi) -> None:
    api.backend.indexes = (describe_index("docs", PARTIAL), describe_index("new", snapshot=None))
    page.locator("[data-tab=status]").click()
    rows = page.locator("tbody tr")
    expect(rows.nth(0)).to_contain_text("75 %3 of 4 partitions, missing: 2")
    expect(rows.nth(1)).to_contain_text("none yet")
    expect(rows.nth(2)).to_contain_text("healthy")


def test_a_wrong_key_is_refused(api: LiveApi, visit: Visit) -> None:
    page = visit("#key=wrong", at=f"http://127.0.0.1:{api.port}/", ready="#key-value")
    expect(page.locator("#key-complaint")).to_contain_text("nobody has this key")


def test_a_server_that_starts_is_waited_for(visit: Visit) -> None:
    with live(FakeBackend(indexes=(), generators=())) as api:
        page = visit(at=f"http://127.0.0.1:{api.port}/")
        expect(page.locator("#loading")).to_contain_text("no index to search and no model to ask")
