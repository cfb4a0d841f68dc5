"""Fixtures for the tests of the page: a real Chromium, the scripted server, pages that tell what went wrong in them.

The browser is one a module: while it runs, this thread has an event loop, which other tests must not meet. Test modules
load this file as a plugin and do not import it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from page_browser import DEADLINE_S, DESKTOP, Visit
from page_server import PageServer
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

# What a browser logs by itself about any reply with a status of 400 or more, or about none.
OF_THE_NETWORK = "Failed to load resource"

NO_CHROMIUM = (
    "the tests of the page need Chromium, and none is on the PATH: apt-get install -y chromium (Debian, Ubuntu with a "
    "package of it), or put any Chromium or Chrome on the PATH as `chromium`"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.fail(NO_CHROMIUM, pytrace=False)
    expect.set_options(timeout=DEADLINE_S * 1000)
    # As root, Chromium starts only without its sandbox.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def running_server() -> Iterator[PageServer]:
    """The scripted server."""
    with PageServer() as server:
        yield server


@pytest.fixture
def server(running_server: PageServer) -> PageServer:
    """The scripted server, as new for each test."""
    running_server.forget()
    return running_server


@pytest.fixture(scope="module")
def context_with(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Contexts by their options; pages of one share only the files that the browser keeps, each is a tab of its own."""
    contexts: dict[str, BrowserContext] = {}

    def with_options(**options: Any) -> BrowserContext:
        name = repr(options)
        if name not in contexts:
            contexts[name] = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **options})
            contexts[name].set_default_timeout(DEADLINE_S * 1000)
        return contexts[name]

    yield with_options
    for context in contexts.values():
        context.close()


@pytest.fixture
def visit(context_with: Callable[..., BrowserContext], server: PageServer) -> Iterator[Visit]:
    """Opens the page, of this server or another, with options of a browser context, and waits until it can be used.

    When the test is over, no page may have logged an error, thrown one or broken its Content-Security-Policy.
    """
    pages: list[Page] = []
    errors: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and OF_THE_NETWORK not in message.text:
            errors.append(message.text)

    def open_page(fragment: str = "", ready: str = "#tabs", at: str = server.url, **options: Any) -> Page:
        page = context_with(**options).new_page()
        pages.append(page)
        page.on("console", heard)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(at + fragment)
        expect(page.locator(ready)).to_be_visible()
        return page

    yield open_page
    for page in pages:
        page.close()
    assert errors == []
