"""Which run and which search a configuration means: what goes on, and what begins anew."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import train_bases

from ray_jobs.errors import UsageError
from ray_jobs.models.resolve import resolve
from ray_jobs.storage import open_storage
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.identity import FREE, is_free, run_folder
from ray_jobs.train.job import make_plan
from ray_jobs.train.methods import METHODS
from ray_jobs.train.plan import start_of
from ray_jobs.train.tune import job
from ray_jobs.train.tune.config import TuneConfig
from ray_jobs.train.tune.dimensions import Choice
from ray_jobs.train.tune.space import Space, keys, value_at

FIXED: dict[str, Any] = {"base": "toy", "data": "rows", "name": "tuned", "zero": {"stage": 2}}


def one_value(key: str, value: Any, method: str) -> TrainConfig:
    """The configuration of a search over one value; raises UsageError where the space does not take it."""
    fixed = {**FIXED, "method": method}
    if key.startswith("zero."):
        fixed.pop("zero")
    return Space(fixed, {key: Choice(type="choice", values=(value,))}).example


def literals(schema: Any) -> Iterator[Any]:
    """Every word and number that the schema of a configuration names as a choice."""
    if isinstance(schema, dict):
        yield from schema.get("enum", ())
        if "const" in schema:
            yield schema["const"]
    for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from literals(inner)


NAMED = literals(TrainConfig.model_json_schema())
VALUES = [True, False, 0, 1, 2, 4, 8, 32, 64, 0.25, 0.5, "a", "b", ["a"], ["b"], *NAMED]


@pytest.mark.parametrize("method", METHODS)
def test_two_values_of_a_key_that_may_be_searched_are_two_runs(method: str) -> None:
    searched = []
    for key in keys():
        runs = {}
        for value in VALUES:
            try:
                config = one_value(key, value, method)
            except UsageError:
                continue
            taken = json.dumps(value_at(config.model_dump(mode="json"), key))
            runs[taken] = run_folder(config, ["base", "data"])
        assert len(set(runs.values())) == len(runs), key
        searched += [key] * (len(runs) > 1)
    assert len(searched) > 20
    assert ("optimisation.micro_batch" in searched) is (method in ("embedder", "kto"))


@pytest.mark.parametrize("key", [key for key in keys() if is_free(key, "sft")])
def test_a_key_that_changes_nothing_learned_cannot_be_searched(key: str) -> None:
    with pytest.raises(UsageError, match=rf"^space\.{key} cannot be searched: "):
        one_value(key, 1, "sft")


def test_every_key_that_is_left_out_is_one_of_the_configuration() -> None:
    known = keys()
    for block, names in FREE.items():
        for place in [block] if names is True else [f"{block}.{name}" for name in names]:
            assert any(key == place or key.startswith(f"{place}.") for key in known), place


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """A base that is resolved and never loaded, and rows of two kinds."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    train_bases.completions(tmp_path / "sft", train=16, validation=4)
    train_bases.retrieval(tmp_path / "embedder", train=16, validation=4)
    return tmp_path


def given(places: Path, method: str, **optimisation: Any) -> dict[str, Any]:
    return {
        "method": method,
        "base": str(places / "base"),
        "data": str(places / method),
        "store": str(places / "store"),
        "name": "tuned",
        "optimisation": {"global_batch": 16, **optimisation},
    }


def runs_of(places: Path, method: str, key: str, values: list[Any]) -> set[str]:
    storage = open_storage(str(places / "store"))
    return {
        make_plan(TrainConfig.model_validate(given(places, method, **{key: value})), storage).run for value in values
    }


def test_a_run_goes_on_with_what_takes_less_memory_unless_that_changes_what_is_learned(places: Path) -> None:
    for method, count in (("sft", 1), ("embedder", 2)):
        assert len(runs_of(places, method, "micro_batch", [8, 4])) == count
        assert len(runs_of(places, method, "gradient_checkpointing", [False, True])) == 1
        assert len(runs_of(places, method, "learning_rate", [1e-3, 1e-4])) == 2


@pytest.mark.parametrize(("method", "count"), [("sft", 1), ("embedder", 2)])
def test_a_search_goes_on_with_a_smaller_micro_batch_unless_that_changes_what_is_learned(
    places: Path, monkeypatch: pytest.MonkeyPatch, method: str, count: int
) -> None:
    monkeypatch.setattr(job, "_drive", lambda *given: True)
    search = {"space": {"optimisation.learning_rate": {"type": "choice", "values": [1e-3, 1e-4]}}, "search": "grid"}
    for changes in ({"micro_batch": 8}, {"micro_batch": 4}, {"micro_batch": 4, "gradient_checkpointing": True}):
        job.run(TuneConfig.model_validate({"train": given(places, method, **changes), **search}))
    assert len(list((places / "store" / "tune" / "tuned").iterdir())) == count


def test_base_and_start_mean_the_same_in_every_folder(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (places / "adapter").mkdir()
    about = {"base_model_name_or_path": str(places / "base"), "r": 16, "lora_alpha": 32}
    shape = {"use_dora": False, "use_rslora": False}
    (places / "adapter" / "adapter_config.json").write_text(json.dumps({**about, **shape}))
    (places / "adapter" / "adapter_model.safetensors").write_bytes(b"")
    monkeypatch.chdir(places)
    config = TrainConfig.model_validate({**given(places, "sft"), "base": "base", "lora": {"start": "./adapter"}})
    storage = open_storage(config.store)
    plan = make_plan(config, storage)
    monkeypatch.chdir("/")
    assert plan.config.base == str(places / "base")
    assert start_of(storage, plan) == resolve(str(places / "adapter"))
