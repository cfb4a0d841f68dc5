"""What tests do with the page: ask, search, wait."""

from __future__ import annotations

import time
from collections.abc import Callable

from playwright.sync_api import Page, expect

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
