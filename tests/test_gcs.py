"""A store on Google Cloud Storage, by the protocol that its client speaks: the XML API, conditions and all.

Sources there go through pyarrow, which speaks the JSON API: of the servers to be had for it, gcp-storage-emulator
2026.7.19 and fake-gcs-server, neither keeps conditions of the XML API, so only the names of such sources are tested.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from gcs_server import gcs_server
from ingest_runs import article, ingest, rows_of, write_jsonl

from ray_jobs.corpus.listing import is_uri, name_of
from ray_jobs.errors import ConflictError, NotFoundError
from ray_jobs.index import manifest
from ray_jobs.index.verify import verify
from ray_jobs.storage import LocalStorage, ObjectStorage, open_storage, sha256_of
from ray_jobs.storage.settings import StorageSettings

pytest_plugins = ["in_process"]

STORE = "gs://bucket/store"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    monkeypatch.setenv("TANDEM_CACHE", str(tmp_path / "cache"))
    with gcs_server() as (environment, server):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield server


def test_a_create_asks_that_the_key_has_no_generation_and_one_of_many_wins(server: Any) -> None:
    def write(number: int) -> bool:
        try:
            open_storage(STORE).create("k", str(number).encode())
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        won = list(pool.map(write, range(6)))
    assert sum(won) == 1
    assert server.created_if_absent == 6
    assert open_storage(STORE).read("k") == str(won.index(True)).encode()


def test_objects_are_written_listed_read_and_deleted(server: Any, tmp_path: Path) -> None:
    storage = ObjectStorage(STORE, settings=StorageSettings(part_mb=5, timeout_s=20))
    path = tmp_path / "large"
    path.write_bytes(random.Random(0).randbytes(12 << 20))
    storage.upload("a/large", path)
    storage.create("a/small", b"x")
    assert [(item.key, item.size) for item in storage.list("a")] == [("a/large", 12 << 20), ("a/small", 1)]
    assert sha256_of(storage.local("a/large", sha256_of(path))) == sha256_of(path)
    storage.delete("a/small")
    with pytest.raises(NotFoundError, match="gs://bucket/store/a/small does not exist"):
        storage.read("a/small")


@pytest.mark.usefixtures("in_process")
def test_an_index_in_a_bucket_is_that_on_a_disk(server: Any, tmp_path: Path) -> None:
    for numbers in (range(10, 30), range(15, 40)):
        source = write_jsonl(tmp_path / "a.jsonl", [article(number) for number in numbers])
        for store in (str(tmp_path / "store"), STORE):
            assert ingest(tmp_path, source, store=store, shards=2).outcome == "published"
    found = manifest.read_live(open_storage(STORE), "test")
    assert found.number == 2
    assert rows_of(open_storage(STORE)) == rows_of(LocalStorage(tmp_path / "store"))
    assert verify(open_storage(STORE), found).problems == ()


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("gs://bucket/docs", "docs"),
        ("gs://anonymous@bucket/docs/**/*.md", "docs"),
        ("gs://bucket/docs?endpoint_override=localhost:4443&scheme=http", "docs"),
        ("gs://bucket", "bucket"),
    ],
)
def test_a_source_is_named_by_its_last_folder(source: str, name: str) -> None:
    assert is_uri(source)
    assert name_of(source) == name
