"""The page shows what is served, and keeps it up to date while somebody looks."""

from __future__ import annotations

from page_browser import Visit, until
from page_server import Failing, PageServer
from playwright.sync_api import Page, expect

pytest_plugins = ["page_fixtures"]


def watch(page: Page) -> None:
    """Open the view, with a clock that the test moves."""
    page.clock.install()
    page.locator("[data-tab=status]").click()
    page.clock.run_for(10)
    expect(page.locator("table").first).to_be_visible()


def asked(server: PageServer) -> int:
    return server.fetched.count("/v1/status")


def pass_unasked(page: Page, server: PageServer) -> bool:
    """Let time pass and ask the server something else, so that it has seen whatever was asked before."""
    before = asked(server)
    page.clock.run_for(10_000)
    page.evaluate("fetch('v1/models').then((reply) => reply.text())")
    return asked(server) == before


def test_indices_are_shown_with_their_state(visit: Visit) -> None:
    page = visit()
    watch(page)
    rows = page.locator("table").first.locator("tbody tr")
    assert rows.nth(0).locator("th, td").all_text_contents() == [
        "docsdefault",
        "7loading 8",
        "12,408",
        "61,377",
        "100 %4 of 4 partitions",
        "minilm",
    ]
    assert rows.nth(1).locator("td").all_text_contents()[3] == "75.1 %3 of 4 partitions, missing: 2"


def test_deployments_are_shown_with_their_replicas(visit: Visit) -> None:
    page = visit()
    watch(page)
    rows = page.locator("table").nth(1).locator("tbody tr")
    assert rows.nth(2).locator("th, td").all_text_contents() == ["Partition-0", "healthy", "2"]
    assert rows.nth(3).locator("th, td").all_text_contents() == ["Partition-1", "updating", "1 of 2"]


def test_it_is_asked_for_again_while_it_is_looked_at(visit: Visit, server: PageServer) -> None:
    page = visit()
    watch(page)
    server.status = {**server.status, "deployments": []}
    page.clock.run_for(5100)
    expect(page.locator("table").nth(1).locator("tbody tr")).to_have_count(0)
    assert asked(server) == 2


def test_it_is_not_asked_for_while_nobody_looks(visit: Visit, server: PageServer) -> None:
    page = visit()
    watch(page)
    page.evaluate("Object.defineProperty(document, 'hidden', { get: () => true, configurable: true })")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    assert pass_unasked(page, server)
    page.evaluate("delete document.hidden")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.clock.run_for(10)
    until(lambda: asked(server) == 2, page)


def test_it_is_not_asked_for_in_another_view(visit: Visit, server: PageServer) -> None:
    page = visit()
    watch(page)
    page.locator("[data-tab=ask]").click()
    assert pass_unasked(page, server)


def test_a_server_that_fails_is_asked_again(visit: Visit, server: PageServer) -> None:
    page = visit()
    watch(page)
    server.failing["/v1/status"] = Failing(503, "the controller does not answer")
    page.clock.run_for(5100)
    expect(page.locator("#status .notice.bad")).to_contain_text("the controller does not answer")
    server.failing.clear()
    page.clock.run_for(5100)
    expect(page.locator("table").first).to_be_visible()
