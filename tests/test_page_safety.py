"""Nothing that a document or a server says is more than text, and a key stays where it belongs."""

from __future__ import annotations

import re
from typing import Any

from page_browser import Visit, ask, begin, search
from page_corpus import BATCHES, FIRED, HOSTILE
from page_server import PAGE, POLICY, Failing, PageServer, chunk, found, last, quoting
from playwright.sync_api import Page, expect

pytest_plugins = ["page_fixtures"]

MARKUP = "<img src=x onerror=window.__fired=99><script>window.__fired=98</script>"
QUOTE = HOSTILE.passage[2:60]
FOREIGN_ELEMENTS = "body img, body script, body iframe, body svg, body b b, body object, body style, body [style*=url]"


def watched(page: Page, server: PageServer) -> list[str]:
    """What the page asks of other servers, and the dialogs that it opens."""
    seen: list[str] = []
    page.on("request", lambda request: None if request.url.startswith(server.url) else seen.append(request.url))
    page.on("dialog", lambda dialog: (seen.append(dialog.message), dialog.dismiss()))
    return seen


def assert_only_text(page: Page) -> None:
    assert page.evaluate(FIRED) is None
    assert page.locator(FOREIGN_ELEMENTS).count() == 0
    assert page.evaluate("({}).polluted ?? null") is None


def test_the_page_is_served_under_the_policy(server: PageServer, visit: Visit) -> None:
    page = visit()
    for path in ("", "page/main.js", "page/style.css"):
        assert page.request.get(server.url + path).headers["content-security-policy"] == POLICY
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<style|\sstyle=|\son\w+=|<script(?! type=\"module\" src=)|https?:", html) == []


def test_a_hostile_document_is_text_in_an_answer_and_in_the_panel(visit: Visit, server: PageServer) -> None:
    server.answers[MARKUP] = quoting((HOSTILE, QUOTE), (BATCHES, "By default"), others=[HOSTILE])
    page = visit()
    seen = watched(page, server)
    ask(page, MARKUP)
    expect(page.locator(".question")).to_have_text(MARKUP)
    page.locator(".marker").first.click()
    assert page.locator("#panel-text mark").text_content() == shown(QUOTE)
    assert page.locator("#panel-text").text_content() == shown(HOSTILE.passage)
    assert page.locator("#panel-title").text_content() == shown(HOSTILE.title)
    expect(page.locator("#panel a")).to_have_count(0)
    assert_only_text(page)
    assert seen == []


def test_hostile_hits_are_text(visit: Visit, server: PageServer) -> None:
    server.searches[MARKUP] = found([HOSTILE.hit(1, {"<b>dense</b>": 0.5, "dense": 0.4})], degraded=[MARKUP])
    page = visit()
    seen = watched(page, server)
    search(page, MARKUP)
    assert shown(HOSTILE.title) in (page.locator(".hit").text_content() or "")
    page.locator(".hit .open").click()
    expect(page.locator("#panel-facts dt").filter(has_text="__proto__")).to_be_visible()
    assert_only_text(page)
    assert seen == []


def test_hostile_names_and_errors_are_text(visit: Visit, server: PageServer) -> None:
    index: dict[str, Any] = {**server.indexes[0], "id": MARKUP, "embedder": MARKUP}
    server.indexes = [{**index, "metadata": {MARKUP: MARKUP, "constructor": "constructor", "__proto__": "string"}}]
    server.models = [{"id": MARKUP, "kind": "generator"}]
    server.status = {"indexes": [], "deployments": [{"name": MARKUP, "status": MARKUP, "replicas": 1, "wanted": 1}]}
    server.answers["q"] = Failing(400, MARKUP, MARKUP, {"x-request-id": MARKUP})
    server.answers["r"] = [chunk(MARKUP, model=MARKUP), last([], model=MARKUP, degraded=[MARKUP]), "[DONE]"]
    page = visit()
    ask(page, "q")
    expect(page.locator(".notice.bad")).to_contain_text(MARKUP)
    ask(page, "r")
    expect(page.locator(".words").last).to_have_text(MARKUP)
    search(page, "q")
    expect(page.locator(".field").first).to_contain_text(MARKUP)
    page.locator(".field").first.click()
    page.locator("[data-tab=status]").click()
    expect(page.locator("tbody th").first).to_have_text(f"{MARKUP}default")
    assert_only_text(page)


def test_a_hostile_link_is_text(visit: Visit) -> None:
    page = visit("#tab=search&q=%3Cimg%20src=x%20onerror=window.__fired=97%3E&where=%3Cscript%3E")
    expect(page.locator(".hit")).to_have_count(3)
    assert_only_text(page)


def test_characters_that_hide_text_are_made_visible(visit: Visit, server: PageServer) -> None:
    server.searches["q"] = found([HOSTILE.hit(1, {"dense": 0.5})])
    page = visit()
    search(page, "q")
    text = page.locator(".hit .excerpt").text_content() or ""
    assert "\u2400\u2407\u241b[31m" in text
    assert "\u202e" not in (page.locator("body").text_content() or "")


def test_all_of_ordinary_use_is_free_of_errors(visit: Visit, server: PageServer) -> None:
    page = visit()
    logged: list[str] = []
    page.on("console", lambda message: logged.append(message.text))
    page.on("pageerror", lambda error: logged.append(str(error)))
    seen = watched(page, server)
    ask(page, "q")
    page.locator(".marker").click()
    page.locator("#panel-close").click()
    search(page, "batches")
    page.locator("[data-tab=status]").click()
    expect(page.locator("table").first).to_be_visible()
    page.reload()
    expect(page.locator("#status table").first).to_be_visible()
    assert logged == []
    assert seen == []


def test_a_key_is_asked_for_once_and_sent_from_then_on(visit: Visit, server: PageServer) -> None:
    server.key = "sesame"
    page = visit(ready="#key-value")
    expect(page.locator("#key-complaint")).to_be_hidden()
    expect(page.locator("#loading")).to_be_empty()
    for wrong, complaint in (("wrong", "not accepted"), ("密钥", "letters, digits and signs")):
        page.locator("#key-value").fill(wrong)
        page.locator("#key-value").press("Enter")
        expect(page.locator("#key-complaint")).to_contain_text(complaint)
        expect(page.locator("#key-value")).to_be_focused()
    page.locator("#key-value").fill(" sesame ")
    page.locator("#key-value").press("Enter")
    expect(page.locator("#tabs")).to_be_visible()
    ask(page, "q")
    expect(page.locator(".marker")).to_have_count(1)
    page.reload()
    expect(page.locator("#tabs")).to_be_visible()
    page.locator("#change-key").click()
    page.reload()
    expect(page.locator("#key-value")).to_be_visible()


def test_a_key_in_the_address_is_taken_over_and_removed(visit: Visit, server: PageServer) -> None:
    server.key = "a+b/c=="
    page = visit("#tab=search&key=a+b/c==&q=batches")
    expect(page.locator(".hit")).to_have_count(3)
    assert page.evaluate("location.hash") == "#tab=search&q=batches&index=docs"
    assert page.evaluate("JSON.stringify({ ...localStorage }) + document.cookie") == "{}"
    page.evaluate("location.hash = 'tab=ask&key=other'")
    expect(page.locator("#key-value")).to_be_visible()
    assert "key" not in page.evaluate("location.hash")


def test_a_key_that_is_withdrawn_is_asked_for_and_the_conversation_stays(visit: Visit, server: PageServer) -> None:
    server.key = "old"
    page = visit("#key=old")
    ask(page, "one")
    page.locator(".marker").click()
    server.key = "new"
    begin(page, "two")
    expect(page.locator("#panel")).to_be_hidden()
    expect(page.locator("#key-complaint")).to_contain_text("not accepted")
    page.locator("#key-value").fill("new")
    page.locator("#key-value").press("Enter")
    expect(page.locator(".question").first).to_have_text("one")
    ask(page, "three")
    assert [turn["content"] for turn in server.asked[-1]["messages"]][::2] == ["one", "three"]


def test_a_server_that_fails_at_first_is_tried_again(visit: Visit, server: PageServer) -> None:
    server.failing["/v1/models"] = Failing(503, "starting")
    page = visit(ready="#loading .notice")
    server.failing.clear()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#question")).to_be_focused()


def test_a_server_that_serves_nothing_yet_says_so(visit: Visit, server: PageServer) -> None:
    indexes, server.indexes = server.indexes, []
    server.models = server.models[2:]
    page = visit()
    expect(page.locator("#loading")).to_contain_text("no index to search and no model to ask")
    server.indexes = indexes
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#loading")).to_contain_text("There is no model to ask.")


def shown(text: str) -> str:
    """How the page shows control characters and overrides of the writing direction."""
    return "".join(
        chr(0x2400 + ord(character)) if ord(character) < 32 and character not in "\n\t\r" else character
        for character in text.replace("\u202e", "\ufffd")
    )
