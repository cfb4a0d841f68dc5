"""Adapters that begin as another one: the same numbers where both have them, and what cannot begin so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import train_bases
from numpy.typing import NDArray
from safetensors.numpy import load_file
from train_runs import plan_of, settings, train_alone

from ray_jobs.errors import ModelError, NotFoundError, UsageError
from ray_jobs.train import job
from ray_jobs.train.config import TrainConfig

pytestmark = pytest.mark.slow

RANK: dict[str, Any] = {"rank": 8, "alpha": 8}


@dataclass(frozen=True)
class Places:
    """A base, rows for two methods, and a store that has an adapter of each."""

    folder: Path
    base: Path
    rows: dict[str, Path]

    def config(self, method: str, name: str, lora: dict[str, Any], **optimisation: Any) -> TrainConfig:
        return settings(
            method, self.base, self.rows[method], self.folder / "store", name, lora=lora, optimisation=optimisation
        )

    def weights(self, name: str) -> dict[str, NDArray[np.float32]]:
        return load_file(self.folder / "store" / "models" / name / "adapter_model.safetensors")

    def started(self, method: str, name: str, start: str) -> dict[str, NDArray[np.float32]]:
        """The weights after a step that changes next to nothing."""
        chosen = {"max_steps": 1, "learning_rate": 1e-12, "weight_decay": 0.0}
        job.run(train_alone(self.config(method, name, {**RANK, "start": start}, **chosen)))
        return self.weights(name)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    folder = tmp_path_factory.mktemp("starting")
    rows = {
        "reranker": train_bases.retrieval(folder / "retrieval"),
        "reader": train_bases.questions(folder / "questions", train=64, validation=8),
    }
    found = Places(folder, train_bases.encoder(folder / "base"), rows)
    for method in rows:
        job.run(train_alone(found.config(method, f"first-{method}", RANK)))
    return found


def test_a_run_begins_with_the_matrices_and_the_head_of_an_adapter_of_its_task(places: Places) -> None:
    first, second = places.weights("first-reranker"), places.started("reranker", "same-task", "first-reranker")
    assert second.keys() == first.keys()
    assert any(np.abs(value).max() > 0 for name, value in first.items() if "lora_B" in name)
    for name, value in first.items():
        np.testing.assert_allclose(second[name], value, atol=1e-9, err_msg=name)


def test_a_run_begins_with_the_matrices_of_an_adapter_of_another_task_and_a_head_of_its_own(places: Places) -> None:
    first, second = places.weights("first-reader"), places.started("reranker", "other-task", "first-reader")
    matrices = {name for name in first if "lora_" in name}
    assert matrices < second.keys()
    for name in matrices:
        np.testing.assert_allclose(second[name], first[name], atol=1e-9, err_msg=name)
    assert not [name for name in second if "qa_outputs" in name]
    assert [name for name in second if "classifier" in name]


def test_where_a_run_begins_is_part_of_what_it_learns(places: Places) -> None:
    plans = [plan_of(places.config("reranker", "x", {**RANK, **start})) for start in ({}, {"start": "first-reader"})]
    assert plans[0].run != plans[1].run


@pytest.mark.parametrize(
    ("lora", "error", "message"),
    [
        ({"rank": 4, "alpha": 8}, UsageError, r"lora.start=first-reader: was trained with lora.rank=8, not 4"),
        ({"rank": 8, "alpha": 16}, UsageError, r"lora.start=first-reader: was trained with lora.alpha=8, not 16"),
        ({**RANK, "dora": True}, UsageError, r"lora.dora=False, not True"),
        ({**RANK, "start": "nobody"}, NotFoundError, r"nobody"),
    ],
)
def test_what_a_run_cannot_begin_with_is_refused_before_it_starts(
    places: Places, lora: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        plan_of(places.config("reranker", "x", {"start": "first-reader", **lora}))


def test_a_whole_model_and_an_adapter_of_another_base_are_refused(places: Places, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a whole model, expected an adapter; name it as base"):
        plan_of(places.config("reranker", "x", {**RANK, "start": str(places.base)}))
    other = Places(places.folder, train_bases.embedder(tmp_path / "other"), places.rows)
    with pytest.raises(UsageError, match=r"lora.start=first-reader: an adapter of .*, not of base="):
        plan_of(other.config("reranker", "x", {**RANK, "start": "first-reader"}))


def test_matrices_without_a_place_are_named(places: Places) -> None:
    narrow = {**RANK, "targets": ("query",), "start": "first-reader"}
    with pytest.raises(ModelError, match=r"lora.start=first-reader: \d+ of its matrices, such as .*; set lora.targets"):
        train_alone(places.config("reranker", "narrow", narrow))
