"""The models that Tandem carries, as they lie there: small, of the base in the wheel, in the package, and good."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ray_jobs.answer.defaults import READER, RERANKER
from ray_jobs.models.adapter import AdaptedModel, resolve_adapted
from ray_jobs.models.card import check_base
from ray_jobs.models.kind import Kind, kind_of
from ray_jobs.models.reader import Reader, ReaderConfig
from ray_jobs.models.reranker import Reranker, RerankerConfig
from ray_jobs.models.resolve import SHIPPED, resolve

ROOT = Path(__file__).parent.parent
FOLDERS = sorted(path.name for path in SHIPPED.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))
MOST_BYTES = 6_000_000
WHEEL = "sentence-transformers/all-MiniLM-L6-v2"

QUESTION = "When was the Eiffel Tower completed?"
RIGHT = "The Eiffel Tower in Paris was completed in 1889 and is 330 metres tall."
WRONG = "Sourdough bread rises slowly because wild yeast and bacteria work in the dough over night."

every_folder = pytest.mark.parametrize("name", FOLDERS)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing but what the package has is found."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


def files(name: str) -> list[Path]:
    return sorted(path for path in (SHIPPED / name).rglob("*") if path.is_file())


def carried(name: str) -> AdaptedModel:
    found = resolve_adapted(name)
    assert found.folder == (SHIPPED / name).resolve()
    return found


def test_the_reader_and_the_reranker_are_carried() -> None:
    assert {READER, RERANKER} <= set(FOLDERS)


@every_folder
def test_it_is_small(name: str) -> None:
    assert sum(path.stat().st_size for path in files(name)) <= MOST_BYTES


@every_folder
def test_it_was_trained_on_the_very_base_that_the_wheel_has(name: str) -> None:
    model = carried(name)
    card = json.loads((SHIPPED / name / "card.json").read_text(encoding="utf-8"))
    assert model.adapter is not None
    assert model.base.origin == "wheel"
    assert (card["name"], card["base"]) == (name, {"name": WHEEL, "revision": resolve(WHEEL).revision})
    check_base(model)


@every_folder
def test_every_file_of_it_is_in_the_package(name: str) -> None:
    package = ROOT / "ray_jobs"
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["ray_jobs"]
    packed = {path for pattern in patterns for path in package.glob(pattern)}
    assert files(name)
    assert set(files(name)) <= packed


def check_reader(name: str) -> None:
    reader = Reader.load(ReaderConfig(model=name, precision="float32", device="cpu"))
    right, wrong = reader.spans(QUESTION, [RIGHT, WRONG])
    assert right is not None
    assert wrong is not None
    assert RIGHT[right.start : right.end] == "1889"
    assert wrong.margin < reader.threshold < right.margin


def check_reranker(name: str) -> None:
    reranker = Reranker.load(RerankerConfig(model=name, precision="float32", device="cpu"))
    right, wrong = reranker.scores(QUESTION, [RIGHT, WRONG])
    assert right > wrong


# A model of another kind needs a check of its own here.
CHECKS: Mapping[Kind, Callable[[str], None]] = {"reader": check_reader, "reranker": check_reranker}


@every_folder
def test_it_does_what_it_is_carried_for(name: str) -> None:
    kind = kind_of(SHIPPED / name)
    assert kind in CHECKS
    CHECKS[kind](name)
