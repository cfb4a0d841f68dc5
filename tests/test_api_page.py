"""The page's files over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from live_api import LiveApi, live

from serve.api.page import mount_page

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[TestClient]:
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "index.html").write_text("<!doctype html><title>Tandem</title>")
    (folder / "app.js").write_text("// a script")
    (tmp_path / "secret.txt").write_text("secret")
    app = FastAPI()
    mount_page(app, folder)
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize(("path", "kind"), [("/", "text/html"), ("/page/app.js", "text/javascript")])
def test_a_file_is_served_under_a_strict_policy(page: TestClient, path: str, kind: str) -> None:
    response = page.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(kind)
    assert response.headers["content-security-policy"] == POLICY
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"


def test_a_file_that_has_not_changed_is_not_sent_again(page: TestClient) -> None:
    etag = page.get("/page/app.js").headers["etag"]
    response = page.get("/page/app.js", headers={"if-none-match": etag})
    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["content-security-policy"] == POLICY


@pytest.mark.parametrize("path", ["/page/../secret.txt", "/page/%2e%2e/secret.txt", "/page//etc/passwd", "/page/%00"])
def test_nothing_outside_the_folder_is_served(page: TestClient, path: str) -> None:
    assert page.get(path).status_code == 404


def test_a_file_that_is_not_there_is_an_error_object() -> None:
    with live() as api:
        response = api.http.get("/page/nothing.js")
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "not_found"


def test_a_folder_that_is_not_there_has_no_page(tmp_path: Path) -> None:
    app = FastAPI()
    mount_page(app, tmp_path / "nowhere")
    with TestClient(app) as client:
        assert client.get("/").status_code == 404
        assert client.get("/page/app.js").status_code == 404


def test_the_page_needs_no_key_and_replies_are_never_taken_for_pages() -> None:
    api: LiveApi
    with live() as api:
        assert api.http.get("/").status_code == 200
        assert api.post("/v1/search", {"query": "x"}).headers["x-content-type-options"] == "nosniff"
