"""Every method on two real workers of Ray Train: what it learns is what one worker learns, sharded or not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import train_bases
from train_runs import (
    SHARDED_WHOLLY,
    Stretch,
    checkpoints,
    losses,
    outcome,
    plan_of,
    reopen,
    settings,
    train_alone,
    train_together,
)

from ray_jobs.storage import open_storage
from ray_jobs.train.checkpoints import Checkpoints
from ray_jobs.train.config import TrainConfig

pytestmark = pytest.mark.slow

CHECKPOINTED = {"optimisation": {"max_steps": 4, "learning_rate": 0.001, "gradient_checkpointing": True}}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpo": ("dpo", {}),
    "dpo-lora": ("dpo", {"lora": {"rank": 4}}),
    "kto": ("kto", {}),
    "embedder": ("embedder", {}),
    "embedder-cached": ("embedder", {"embedder": {"loss": "cached_mnrl", "mini_batch": 2}}),
    "reranker-bce": ("reranker", {}),
    "reranker-lambda": ("reranker", {"reranker": {"loss": "lambda"}}),
    "reader": ("reader", {}),
}
SHARDED: dict[str, tuple[str, dict[str, Any]]] = {
    "sft": ("sft", {"lora": {"rank": 4}, **CHECKPOINTED}),
    "embedder": ("embedder", {"lora": {"rank": 4}, **CHECKPOINTED}),
    "reranker": ("reranker", {"lora": {"rank": 4}, **CHECKPOINTED}),
    "reader": ("reader", {"lora": {"rank": 4}, **CHECKPOINTED}),
    "sft-dora": ("sft", {"lora": {"rank": 4, "dora": True}}),
    "dpo": ("dpo", {"lora": {"rank": 4}}),
    "dpo-whole": ("dpo", {}),
    "sft-whole": ("sft", {}),
    "embedder-whole": ("embedder", {}),
    "reranker-whole": ("reranker", {}),
    "reader-whole": ("reader", {}),
}
# What the tests of every change run of these; the trials of `make chaos` run all.
CHOSEN = ("sft", "dpo", "embedder-whole", "reranker", "reader-whole")
RESIZED = ("dpo", "embedder", "reranker-whole", "reader-whole")
# TRL estimates its KL over the rows of all workers at once.
BY_WORKERS = ("kto",)


@dataclass(frozen=True)
class Places:
    """Bases, data and store of this file."""

    folder: Path
    bases: dict[str, Path]
    data: dict[str, Path]

    def config(self, kind: tuple[str, dict[str, Any]], name: str, **changes: Any) -> TrainConfig:
        method, own = kind
        short = {"optimisation": {"max_steps": 4, "learning_rate": 0.001}}
        store = self.folder / "store"
        return settings(method, self.bases[method], self.data[method], store, name, **{**short, **own, **changes})


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    folder = tmp_path_factory.mktemp("methods")
    return Places(folder, *train_bases.of_methods(folder))


def together(places: Places, name: str) -> TrainConfig:
    return places.config(METHODS[name], name, zero={"stage": 1})


def sharded(places: Places, name: str) -> TrainConfig:
    return places.config(SHARDED[name], f"sharded-{name}", zero=SHARDED_WHOLLY)


def sharded_by_workers(places: Places, name: str) -> TrainConfig:
    return places.config(METHODS[name], f"sharded-{name}", zero=SHARDED_WHOLLY)


@pytest.fixture(scope="module")
def two_workers(ray_session: None, places: Places) -> Places:
    runs = [together(places, name) for name in METHODS] + [sharded(places, name) for name in CHOSEN]
    runs += [sharded_by_workers(places, name) for name in BY_WORKERS]
    train_together(list(map(Stretch, runs)), workers=2)
    return places


@pytest.fixture(scope="module")
def all_sharded(two_workers: Places) -> Places:
    runs = [sharded(two_workers, name) for name in SHARDED if name not in CHOSEN]
    train_together(list(map(Stretch, runs)), workers=2)
    return two_workers


def resized(places: Places, name: str) -> TrainConfig:
    """As `sharded`, but that two workers begin it and one goes on."""
    often = {"every_steps": 2}
    return places.config(SHARDED[name], f"resized-{name}", zero=SHARDED_WHOLLY, checkpoints=often)


@pytest.fixture(scope="module")
def one_worker(all_sharded: Places) -> Places:
    runs = [resized(all_sharded, name) for name in RESIZED]
    train_together([Stretch(config, stop_after=2) for config in runs], workers=2)
    for config in runs:
        reopen(config)
    train_together(list(map(Stretch, runs)), workers=1)
    return all_sharded


def weights_of(config: TrainConfig) -> dict[str, Any]:
    """The tensors of the one file of weights of the last checkpoint.

    transformers writes BERT's old names of sharded weights, and reads both.
    """
    from safetensors.numpy import load_file

    folder = Checkpoints(open_storage(config.store), plan_of(config).run).fetch(checkpoints(config)[-1])
    [file] = folder.rglob("*.safetensors")
    names = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
    return {
        next((name.replace(old, new) for old, new in names.items() if name.endswith(old)), name): values
        for name, values in load_file(file).items()
    }


def assert_learned_as_one(places: Places, name: str) -> None:
    """The losses and every weight of a sharded run are those of one worker."""
    alone = train_alone(places.config(SHARDED[name], f"one-{name}"))
    config = sharded(places, name)
    assert losses(config) == pytest.approx(losses(alone), rel=1e-4)
    expected, found = weights_of(alone), weights_of(config)
    assert set(found) == set(expected)
    for tensor, values in expected.items():
        assert found[tensor].shape == values.shape
        assert np.allclose(found[tensor], values, atol=1e-3), tensor
    if config.lora is not None:
        assert any("lora_B" in tensor and values.any() for tensor, values in found.items())


@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_to_its_end_with_finite_losses(two_workers: Places, name: str) -> None:
    config = together(two_workers, name)
    assert outcome(config)["steps"] == 4
    assert all(0 < loss < 50 for loss in losses(config).values())
    assert [found.step for found in checkpoints(config)] == [4]


@pytest.mark.parametrize("name", [name for name in METHODS if name not in BY_WORKERS])
def test_two_workers_have_the_losses_and_the_metric_of_one(two_workers: Places, name: str) -> None:
    alone = train_alone(two_workers.config(METHODS[name], f"{name}-alone"))
    config = together(two_workers, name)
    assert losses(config) == pytest.approx(losses(alone), rel=1e-4)
    assert checkpoints(config)[-1].metric == pytest.approx(checkpoints(alone)[-1].metric, rel=1e-3)


@pytest.mark.parametrize("name", CHOSEN)
def test_what_is_learned_with_sharded_weights_is_what_one_worker_learns(two_workers: Places, name: str) -> None:
    assert_learned_as_one(two_workers, name)


@pytest.mark.chaos
@pytest.mark.parametrize("name", [name for name in SHARDED if name not in CHOSEN])
def test_the_other_ways_too_learn_with_sharded_weights_what_one_worker_learns(all_sharded: Places, name: str) -> None:
    assert_learned_as_one(all_sharded, name)


@pytest.mark.chaos
@pytest.mark.parametrize("name", RESIZED)
def test_from_two_workers_to_one_every_method_goes_on_as_if_nothing_had_happened(one_worker: Places, name: str) -> None:
    config = resized(one_worker, name)
    assert [found.workers for found in checkpoints(config)] == [2, 1]
    assert losses(config) == pytest.approx(losses(sharded(one_worker, name)), rel=1e-4)


@pytest.mark.parametrize("name", BY_WORKERS)
def test_what_all_workers_learn_from_together_is_the_same_with_sharded_weights(two_workers: Places, name: str) -> None:
    expected, found = losses(together(two_workers, name)), losses(sharded_by_workers(two_workers, name))
    assert found == pytest.approx(expected, rel=1e-4)
