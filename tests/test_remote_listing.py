"""Sources in a bucket of a real server, listed as a local folder is."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from s3_server import BUCKET, Bucket, s3_server

from ray_jobs.corpus import key_order, remote_listing
from ray_jobs.corpus.listing import list_files, name_of
from ray_jobs.corpus.readers import open_file
from ray_jobs.corpus.sources import list_sources
from ray_jobs.errors import NotFoundError, StorageError

TREE = {
    "b.md": 1,
    "a/x.txt": 2,
    "a/deep/y.pdf": 3,
    "a-b/x.txt": 4,
    "a.txt": 5,
    ".hidden/z.md": 6,
    "a/.hidden.md": 7,
    "what is it? 50% #1.md": 8,
    "é/ü.md": 9,
}


@pytest.fixture(scope="module")
def served() -> Iterator[Bucket]:
    with s3_server() as bucket:
        yield bucket


@pytest.fixture
def bucket(served: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for name, value in served.environment.items():
        monkeypatch.setenv(name, value)
    for key in served.found():
        served.client.delete_object(Bucket=BUCKET, Key=key)
    return served


def lay_out(folder: Path, bucket: Bucket, tree: dict[str, int]) -> None:
    for name, size in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
        bucket.put(f"docs/{name}", b"x" * size)


def found(source: str) -> list[tuple[str, int]]:
    return [(file.relative, file.size) for file in list_files(source)]


def test_a_bucket_lists_what_a_folder_lists_in_the_same_order(bucket: Bucket, tmp_path: Path) -> None:
    lay_out(tmp_path / "docs", bucket, TREE)
    for pattern in ("", "/a", "/*.md", "/**/*.txt", "/a*/*"):
        assert found(f"s3://bucket/docs{pattern}") == found(f"{tmp_path}/docs{pattern}"), pattern
    assert found("s3://bucket") == [(f"docs/{name}", size) for name, size in found(f"{tmp_path}/docs")]
    assert found("s3://bucket/docs/") == found(f"{tmp_path}/docs")


def test_what_is_listed_can_be_opened(bucket: Bucket, tmp_path: Path) -> None:
    lay_out(tmp_path / "docs", bucket, TREE)
    for file in [*list_sources(["s3://bucket/docs"]), *list_sources(["s3://bucket/docs/a/x.txt"])]:
        with open_file(file) as stream:
            assert len(stream.read()) == file.size


names = st.text("ab-. _", min_size=1, max_size=3).filter(lambda name: name.strip(".") and name.strip())
trees = st.recursive(st.integers(0, 3), lambda inner: st.dictionaries(names, inner, max_size=5), max_leaves=15)


def flat(tree: object, prefix: str = "") -> dict[str, int]:
    if isinstance(tree, int):
        return {prefix.rstrip("/"): tree} if prefix else {}
    assert isinstance(tree, dict)
    return {name: size for key, below in tree.items() for name, size in flat(below, f"{prefix}{key}/").items()}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=trees.map(flat))
def test_any_tree_is_listed_alike(
    bucket: Bucket, tmp_path_factory: pytest.TempPathFactory, tree: dict[str, int]
) -> None:
    for key in bucket.found():
        bucket.client.delete_object(Bucket=BUCKET, Key=key)
    bucket.put("docs/here", b"")
    folder = tmp_path_factory.mktemp("tree")
    lay_out(folder / "docs", bucket, {"here": 0, **tree})
    assert found("s3://bucket/docs") == found(f"{folder}/docs")


def test_a_file_is_a_source_and_an_object_and_a_folder_may_have_one_name(bucket: Bucket) -> None:
    for key in ("docs/a.md", "docs/b", "docs/b/c.md", "docs/b/", "docs/empty/"):
        bucket.put(key, b"x")
    assert found("s3://bucket/docs/a.md") == [("", 1)]
    assert found("s3://bucket/docs") == [("a.md", 1), ("b", 1), ("b/c.md", 1)]
    assert found("s3://bucket/docs/empty") == []


def test_the_mark_changes_with_the_content_and_with_nothing_else(bucket: Bucket) -> None:
    def mark() -> str:
        (folder,), (file,) = list_files("s3://bucket/docs"), list_files("s3://bucket/docs/a.md")
        assert folder.modified == file.modified
        return file.modified

    bucket.put("docs/a.md", b"one")
    first = mark()
    bucket.put("docs/a.md", b"two")
    assert mark() != first
    bucket.put("docs/a.md", b"one")
    assert mark() == first


@pytest.mark.parametrize("missing", ["s3://bucket/nowhere", "s3://nobodys-bucket/docs", "s3://bucket/docs/*.none"])
def test_what_is_not_there_is_named(bucket: Bucket, missing: str) -> None:
    bucket.put("docs/a.md", b"x")
    with pytest.raises(NotFoundError, match=missing.replace("*", r"\*")):
        found(missing)


def test_a_service_that_is_not_there_is_named_with_what_to_do(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("ray_jobs.storage.s3._ATTEMPTS", 2)
    with pytest.raises(StorageError, match=r"source 's3://bucket/docs' cannot be listed .*check address"):
        found("s3://bucket/docs")


def test_options_in_a_uri_say_where_the_bucket_is(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out_key = "docs/a.md"
    bucket.put(lay_out_key, b"text")
    server = urlsplit(bucket.environment["AWS_ENDPOINT_URL"]).netloc
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    query = f"?endpoint_override={server}&scheme=http&region=us-east-1"
    assert name_of(f"s3://bucket/docs{query}") == "docs"
    assert found(f"s3://bucket/docs/*.md{query}") == [("a.md", 4)]
    (file,) = list_sources([f"s3://bucket/docs{query}"])
    with open_file(file) as stream:
        assert stream.read() == b"text"


@pytest.mark.chaos
def test_a_large_bucket_is_listed_in_the_memory_of_a_page(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pages:
        """Answers as the client of the server does, without its pages in memory."""

        def paginate(self, Bucket: str, Prefix: str) -> Iterator[dict[str, object]]:
            for page in range(300 if Prefix == "docs/" else 1):
                keys = [f"docs/part-{page * 1000 + number:09d}.md" for number in range(1000)]
                yield {"Contents": [{"Key": key, "Size": 1, "ETag": key} for key in keys if key.startswith(Prefix)]}

        def get_paginator(self, name: str) -> Pages:
            return self

        def head_object(self, **asked: str) -> dict[str, object]:
            return bucket.client.head_object(**asked)

    monkeypatch.setattr(remote_listing, "s3_client", lambda parts: Pages())
    tracemalloc.start()
    listed = list_files("s3://bucket/docs")
    assert next(listed).relative == "part-000000000.md"
    assert sum(1 for _ in listed) == 299_999
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000 * (key_order.HELD + 2_000)
