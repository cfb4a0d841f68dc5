"""Models of a store in a bucket: listed and described without their weights, merged, taken out, used by their names."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_rerankers
import train_bases
from command_line import run
from s3_server import Bucket, s3_server
from tiny_adapters import adapter
from tiny_readers import fitted_to_find
from tiny_rerankers import fitted_to_words

from ray_jobs.errors import ConflictError, NotFoundError
from ray_jobs.models import in_store, resolve
from ray_jobs.models.embedder import Embedder, EmbedderConfig
from ray_jobs.models.reader import Reader, ReaderConfig
from ray_jobs.models.reranker import Reranker, RerankerConfig
from ray_jobs.storage import LocalStorage, ObjectStorage, Storage, open_storage

Capsys = pytest.CaptureFixture[str]
STORE = "s3://bucket/store"
PAIRS = [("cat dog", "the cat sees the dog"), ("owl", "fox fox hen")]
WEIGHTS = ("model.safetensors", "adapter_model.safetensors")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models as folders: one of each kind that is loaded, and an adapter with its base."""
    shared, folder = tmp_path_factory.getbasetemp(), tmp_path_factory.mktemp("made")
    shutil.copytree(fitted_to_words(shared), folder / "words")
    shutil.copytree(fitted_to_find(shared), folder / "finder")
    shutil.copytree(train_bases.embedder(folder.parent / "embedder"), folder / "someone" / "mini")
    train_bases.encoder(folder / "pooled")
    adapter(folder / "pooled", folder / "judge", "SEQ_CLS", ("classifier",))
    settings = folder / "judge" / "adapter_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "base_model_name_or_path": "pooled"}))
    tiny_rerankers.tokenizer(max_length=48).save_pretrained(folder / "judge")
    about = {
        "method": "reranker",
        "form": "adapter",
        "base": {"name": "pooled", "revision": "r"},
        "run": "runs/judge/1",
    }
    (folder / "judge" / "card.json").write_text(json.dumps({**about, "created": "2026-11-25T10:00:00Z"}))
    return folder


@pytest.fixture
def bucket(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """They lie in a bucket, and nothing of them on this machine."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TANDEM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(resolve, "SHIPPED", tmp_path / "shipped")
    monkeypatch.chdir(tmp_path)
    with s3_server() as found:
        for name, value in found.environment.items():
            monkeypatch.setenv(name, value)
        for model in made.iterdir():
            put(found, model, model.name)
        yield found


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys that are fetched into files, as they are."""
    fetched: list[str] = []
    real = ObjectStorage.download

    def download(self: ObjectStorage, key: str, path: Path) -> None:
        fetched.append(key)
        real(self, key, path)

    monkeypatch.setattr(ObjectStorage, "download", download)
    return fetched


def put(bucket: Bucket, folder: Path, name: str) -> None:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        bucket.put(f"store/models/{name}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def models(capsys: Capsys, *arguments: object) -> Any:
    return run(capsys, "models", *arguments, "--store", STORE)


def scores(model: str, store: Storage | None = None) -> list[float]:
    config = RerankerConfig(model=model, precision="float32", device="cpu")
    return Reranker.load(config, store or open_storage(STORE)).score_pairs(PAIRS).scores.tolist()


def test_they_are_listed_and_described_without_their_weights(
    capsys: Capsys, bucket: Bucket, made: Path, downloads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = ObjectStorage.read
    monkeypatch.setattr(ObjectStorage, "read", lambda self, key: read.append(key) or real(self, key))
    found = {item["name"]: item for item in json.loads(models(capsys, "list", "--json").succeeded())}
    kinds = {name: item["kind"] for name, item in found.items()}
    assert kinds == {
        "finder": "reader",
        "judge": "reranker",
        "pooled": None,
        "someone/mini": "embedder",
        "words": "reranker",
    }
    judge = found["judge"]
    assert (judge["form"], judge["base"], judge["created"]) == ("adapter", "pooled", "2026-11-25T10:00:00Z")
    assert judge["bytes"] == sum(path.stat().st_size for path in (made / "judge").rglob("*") if path.is_file())
    assert "judge, reranker, adapter" in models(capsys, "info", "judge").succeeded()
    models(capsys, "info", "nobody").refused(
        "no model 'nobody' in s3://bucket/store/models: it has finder, judge", code=1
    )
    assert not downloads
    assert read
    assert not [key for key in read if key.endswith(WEIGHTS)]


def test_each_is_loaded_by_its_name_as_from_a_folder(bucket: Bucket, made: Path) -> None:
    store = open_storage(STORE)
    assert scores("words", store) == scores(str(made / "words"))
    reader, same = (
        Reader.load(ReaderConfig(model=model, precision="float32", device="cpu"), store)
        for model in ("finder", str(made / "finder"))
    )
    spans = [None if span is None else (span.start, span.end) for span in reader.read_pairs(PAIRS)]
    assert spans == [None if span is None else (span.start, span.end) for span in same.read_pairs(PAIRS)]
    settings = {"engine": "torch", "precision": "float32", "device": "cpu"}
    embedder, other = (
        Embedder.load(EmbedderConfig.model_validate({"model": model, **settings}), store)
        for model in ("someone/mini", str(made / "someone" / "mini"))
    )
    assert embedder.identity.revision == other.identity.revision
    assert (embedder.encode_documents(["cat"]) == other.encode_documents(["cat"])).all()


def test_an_adapter_finds_its_base_in_the_bucket(bucket: Bucket, made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "local" / "models")
    assert scores("judge") == scores("judge", LocalStorage(tmp_path / "local"))


def test_a_model_is_fetched_once_and_again_where_it_has_changed(
    bucket: Bucket, made: Path, downloads: list[str], tmp_path: Path
) -> None:
    before = scores("words")
    assert downloads
    assert scores("words") == before
    once = len(downloads)
    assert once == len(set(downloads))
    other = tiny_rerankers.plain(tmp_path)
    put(bucket, other, "words")
    assert scores("words") == scores(str(other)) != before


def test_a_half_written_model_is_not_found(bucket: Bucket, made: Path, downloads: list[str]) -> None:
    bucket.put("store/models/half/model.safetensors", (made / "words" / "model.safetensors").read_bytes())
    assert "half" not in {model.name for model in in_store.found(open_storage(STORE))}
    with pytest.raises(NotFoundError, match=r"model 'half' not found; looked in: .*s3://bucket/store/models/half"):
        scores("half")
    assert not downloads


def test_a_merged_adapter_is_a_model_of_the_bucket(capsys: Capsys, bucket: Bucket) -> None:
    models(capsys, "merge", "judge", "--as", "whole").succeeded()
    assert "store/models/whole/card.json" in bucket.found("store/models/whole")
    assert scores("whole") == pytest.approx(scores("judge"), abs=1e-5)
    assert "from judge" in models(capsys, "info", "whole").succeeded()
    models(capsys, "merge", "judge", "--as", "whole").refused("as=whole", "is there already", code=1)


def test_an_exported_model_is_a_local_folder(capsys: Capsys, bucket: Bucket, made: Path, tmp_path: Path) -> None:
    models(capsys, "export", "words", "--to", tmp_path / "out").succeeded()
    assert scores(str(tmp_path / "out")) == scores(str(made / "words"))
    models(capsys, "export", "judge", "--to", tmp_path / "judge").succeeded()
    base = json.loads((tmp_path / "judge" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert base == "pooled"  # by its name in the bucket: a path would be one of the cache's


def test_a_damaged_card_names_the_bucket_and_spoils_no_list(capsys: Capsys, bucket: Bucket) -> None:
    bucket.put("store/models/finder/card.json", b"{")
    models(capsys, "info", "finder").refused("'s3://bucket/store/models/finder/card.json' is not JSON", code=1)
    assert len(models(capsys, "list").succeeded().splitlines()) == 5


def test_a_model_that_changes_while_it_is_fetched_is_no_mixture(
    bucket: Bucket, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tiny_rerankers.plain(tmp_path)
    real = ObjectStorage.download

    def download(self: ObjectStorage, key: str, path: Path) -> None:
        real(self, key, path)
        if key.endswith("model.safetensors") and not bucket.found("store/changed"):
            bucket.put("store/changed", b"")
            put(bucket, other, "words")

    monkeypatch.setattr(ObjectStorage, "download", download)
    assert scores("words") == scores(str(other))


def test_a_copy_goes_a_day_after_its_last_use(bucket: Bucket, tmp_path: Path) -> None:
    store = open_storage(STORE)
    first = in_store.local_folder(store, "judge")
    bucket.put("store/models/judge/notes.txt", b"one")
    second = in_store.local_folder(store, "judge")
    assert first is not None
    assert second is not None
    assert first.is_dir()  # somebody may be reading it
    yesterday = time.time() - 2 * 24 * 3600
    os.utime(first.parent, (yesterday, yesterday))
    bucket.put("store/models/judge/notes.txt", b"two")
    assert in_store.local_folder(store, "judge") is not None
    assert not first.exists()
    assert second.is_dir()


def test_a_name_that_is_taken_in_the_bucket_is_refused(bucket: Bucket) -> None:
    from ray_jobs.train.publish import check_free

    store = open_storage(STORE)
    check_free(store, "judge", ["runs/judge/1"])
    check_free(store, "new", ["runs/new/1"])
    for name, whose in (("judge", "made by runs/judge/1"), ("words", "is there already")):
        with pytest.raises(ConflictError, match=rf"name={name}: .*{whose}.*; choose another name"):
            check_free(store, name, ["runs/other/2"])


@pytest.mark.parametrize("name", ["../models/words", "/words", "words/", "a//b", "."])
def test_what_can_be_no_name_is_not_looked_for(bucket: Bucket, name: str) -> None:
    assert in_store.local_folder(open_storage(STORE), name) is None


def test_an_empty_object_for_a_folder_is_no_file(bucket: Bucket, made: Path) -> None:
    for key in ("store/models/words/", "store/models/someone/mini/1_Pooling/"):
        bucket.put(key, b"")
    assert scores("words") == scores(str(made / "words"))
    assert in_store.local_folder(open_storage(STORE), "someone/mini") is not None
