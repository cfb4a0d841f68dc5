"""What tests do with pages: ask, search, wait; open a report and read it."""

from __future__ import annotations

import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect

DEADLINE_S = 15.0
DESKTOP = {"width": 1280, "height": 860}
PHONE = {"width": 360, "height": 740}

Visit = Callable[..., Page]
"""Opens the page: see page_fixtures."""


def ask(page: Page, question: str) -> None:
    """Ask by keyboard and wait until the answer is whole, broken or stopped."""
    begin(page, question)
    expect(page.locator("#send")).to_be_visible()


def begin(page: Page, question: str) -> None:
    """Ask by keyboard."""
    page.locator("#question").fill(question)
    page.locator("#question").press("Enter")


def search(page: Page, query: str) -> None:
    """Search by keyboard and wait for what comes of it."""
    page.locator("[data-tab=search]").click()
    page.locator("#query").fill(query)
    page.locator("#query").press("Enter")
    expect(page.locator("#results > *").first).to_be_visible()
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false")


def until(condition: Callable[[], bool], page: Page) -> None:
    """Poll until the server has seen what it should."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        page.evaluate("new Promise(requestAnimationFrame)")


class Words(HTMLParser):
    """The text and the tags of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def opened(browser: Browser, folder: Path, text: str, **settings: Any) -> Page:
    """A report from the disk; what it would fetch is a failure, and so is what it logs."""
    file = folder / "report.html"
    file.write_text(text, encoding="utf-8")
    page = browser.new_page(**settings)
    asked: list[str] = []
    told: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.goto(file.as_uri())
    assert asked == [file.as_uri()]
    assert told == []
    return page
