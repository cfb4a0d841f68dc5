"""The page can be used with a keyboard, on a phone, in the dark, and without motion."""

from __future__ import annotations

from pathlib import Path

import pytest
from page_browser import PHONE, Visit, ask, begin, search
from page_corpus import BATCHES, CHINESE, HOSTILE
from page_server import PAGE, PARTIAL, Failing, Gate, PageServer, chunk, found, last, quoting
from playwright.sync_api import Page, expect

pytest_plugins = ["page_fixtures"]

FIRST = "Use map_batches to run a function on every batch of a dataset."
ON_A_PHONE = {"viewport": PHONE, "is_mobile": True, "has_touch": True}

# Every visible text and its contrast with what is behind it, by WCAG 2.2 (1.4.3); large is 24 px, or 18.66 px and bold.
LOW_CONTRASTS = (Path(__file__).parent / "page_contrast.js").read_text(encoding="utf-8")


def tab_to(page: Page, selector: str, key: str) -> None:
    """Press a key until an element has the focus; every one on the way shows that it has."""
    for _ in range(60):
        page.keyboard.press(key)
        style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert style != "none", page.evaluate("document.activeElement.outerHTML")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{key} never came to {selector}")


def every_view(page: Page, server: PageServer) -> list[str]:
    """Names of views and states, each shown when the generator of its name goes on."""
    server.answers["q"] = quoting((BATCHES, FIRST), (HOSTILE, HOSTILE.passage[:80]), others=[CHINESE], coverage=PARTIAL)
    server.answers["e"] = Failing(400, "filter: expected a value, at the ^ in: " + "long" * 40, "where")
    server.searches["q"] = found([HOSTILE.hit(1, {"dense": 0.5}), BATCHES.hit(2, {"dense": 0.4})], coverage=PARTIAL)
    return ["empty", "answer", "passages", "error", "panel", "search", "hit", "status", "key"]


def show(page: Page, server: PageServer, view: str) -> None:
    if view == "answer":
        ask(page, "q")
    elif view == "passages":
        page.locator("summary").click()
    elif view == "error":
        ask(page, "e")
        expect(page.locator(".notice.bad")).to_be_visible()
    elif view == "panel":
        page.locator(".marker").nth(1).click()
    elif view == "search":
        page.keyboard.press("Escape")
        search(page, "q")
    elif view == "hit":
        page.locator(".open").first.click()
    elif view == "status":
        page.keyboard.press("Escape")
        page.locator("[data-tab=status]").click()
        expect(page.locator("table").first).to_be_visible()
    elif view == "key":
        server.key = "sesame"
        page.reload()
        expect(page.locator("#key-value")).to_be_visible()


@pytest.mark.parametrize("options", [{}, ON_A_PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_enough_everywhere(
    visit: Visit, server: PageServer, scheme: str, options: dict[str, object]
) -> None:
    page = visit(color_scheme=scheme, **options)
    for view in every_view(page, server):
        show(page, server, view)
        assert page.evaluate(LOW_CONTRASTS) == [], view


def test_the_two_schemes_differ(visit: Visit) -> None:
    papers = [
        visit(color_scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    assert papers == ["rgb(251, 250, 247)", "rgb(21, 22, 24)"]


@pytest.mark.parametrize("width", [320, 360])
def test_a_phone_never_scrolls_sideways(visit: Visit, server: PageServer, width: int) -> None:
    page = visit(**{**ON_A_PHONE, "viewport": {"width": width, "height": 700}})
    for view in every_view(page, server):
        show(page, server, view)
        wide = page.evaluate(
            "[document.documentElement, document.getElementById('panel-text')].map(e => e.scrollWidth)"
        )
        assert max(wide) <= width, view
        assert page.evaluate("visualViewport.scale") == 1, view


def test_the_panel_is_a_sheet_on_a_phone_and_beside_the_answer_on_a_desktop(visit: Visit) -> None:
    page = visit(**ON_A_PHONE)
    ask(page, "q")
    page.locator(".marker").click()
    box = page.locator("#panel").bounding_box()
    assert box is not None
    assert (box["x"], box["width"], box["y"] + box["height"]) == (
        0,
        PHONE["width"],
        pytest.approx(PHONE["height"], abs=1),
    )
    page.touchscreen.tap(180, 20)
    expect(page.locator("#panel")).to_be_hidden()

    page = visit()
    ask(page, "q")
    page.locator(".marker").click()
    panel, answer = page.locator("#panel").bounding_box(), page.locator(".turn").bounding_box()
    assert panel is not None
    assert answer is not None
    assert answer["x"] + answer["width"] <= panel["x"]


def test_ask_cite_and_close_by_keyboard_alone(visit: Visit, server: PageServer) -> None:
    server.answers["first\nsecond"] = quoting((BATCHES, FIRST))
    page = visit()
    expect(page.locator("#question")).to_be_focused()
    page.keyboard.type("first")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("second")
    assert server.asked == []
    page.keyboard.press("Enter")
    expect(page.locator("#send")).to_be_visible()
    expect(page.locator("#question")).to_have_value("")
    tab_to(page, ".marker", "Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#panel-title")).to_be_focused()
    tab_to(page, "#panel-close", "Tab")
    tab_to(page, "#panel-text", "Tab")
    page.keyboard.press("Escape")
    expect(page.locator("#panel")).to_be_hidden()
    expect(page.locator(".marker")).to_be_focused()
    tab_to(page, "#question", "Tab")


def test_no_keyboard_comes_up_before_it_is_asked_for(visit: Visit) -> None:
    page = visit(**ON_A_PHONE)
    expect(page.locator("#question")).to_be_visible()
    expect(page.locator("#question")).not_to_be_focused()


def test_every_control_is_reached_by_tab(visit: Visit) -> None:
    page = visit("#tab=search&key=k")
    controls = ["#search-index", "#mode", "#k", "#by", "#rerank", "#where", ".field"]
    for control in controls:
        tab_to(page, control, "Tab")
    page.locator("[data-tab=ask]").focus()
    for control in ("[data-tab=search]", "[data-tab=status]", "#change-key"):
        tab_to(page, control, "Tab")


def test_the_focus_stays_in_the_sheet_of_a_phone(visit: Visit) -> None:
    page = visit(**ON_A_PHONE)
    ask(page, "q")
    page.locator(".marker").click()
    for _ in range(6):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || panel.contains(document.activeElement)")


def test_enter_that_spells_a_word_does_not_send(visit: Visit, server: PageServer) -> None:
    page = visit()
    session = page.context.new_cdp_session(page)
    session.send("Input.imeSetComposition", {"text": "shuju", "selectionStart": 5, "selectionEnd": 5})
    expect(page.locator("#question")).to_have_value("shuju")
    # While a word is spelled, the input method takes the key, and the page hears of it with this code.
    session.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", "key": "Enter", "windowsVirtualKeyCode": 229})
    session.send("Input.insertText", {"text": "数据"})
    expect(page.locator("#question")).to_have_value("数据")
    assert server.asked == []
    page.keyboard.press("Enter")
    expect(page.locator(".question")).to_have_text("数据")


def test_an_answer_is_told_to_those_who_listen(visit: Visit, server: PageServer) -> None:
    gate = Gate()
    server.answers["q"] = [chunk("Some words"), gate, last([]), "[DONE]"]
    page = visit()
    begin(page, "q")
    expect(page.locator("[aria-live=polite] .words")).to_have_text("Some words")
    expect(page.get_by_role("status")).to_have_text("Answering")
    server.open(gate)
    expect(page.get_by_role("status")).to_have_text("Answered")


@pytest.mark.parametrize(("wish", "running"), [("reduce", 0), ("no-preference", 1)])
def test_nothing_moves_for_those_who_wish_so(visit: Visit, server: PageServer, wish: str, running: int) -> None:
    server.answers["q"] = [Gate()]
    page = visit(reduced_motion=wish)
    begin(page, "q")
    expect(page.locator(".waiting")).to_be_visible()
    assert page.evaluate("document.getAnimations().length") == running
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == (
        "smooth" if running else "auto"
    )
    page.locator("#stop").click()


def test_the_newest_question_comes_up_to_the_top(visit: Visit, server: PageServer) -> None:
    page = visit()
    for question in ("one", "two", "three"):
        ask(page, question)
    top = page.locator(".turn").last.bounding_box()
    header = page.locator(".top").bounding_box()
    assert top is not None
    assert header is not None
    assert top["y"] == pytest.approx(header["height"], abs=2)


def test_every_module_is_asked_for_at_once() -> None:
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    for module in PAGE.glob("*.js"):
        assert f'="page/{module.name}"' in html, module.name
    for sheet in PAGE.glob("*.css"):
        assert f'<link rel="stylesheet" href="page/{sheet.name}">' in html, sheet.name
