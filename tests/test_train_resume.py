"""Every method by one worker, in this process: stopped and gone on is the same as never stopped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import train_bases
from train_runs import StopAfter, attempts, checkpoints, losses, outcome, reopen, settings, train_alone

from ray_jobs.train.config import TrainConfig

pytestmark = pytest.mark.slow

LORA = {"lora": {"rank": 4, "dropout": 0.1}}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpo with an adapter": ("dpo", {"lora": {"rank": 4}}),
    "kto": ("kto", {}),
    "embedder": ("embedder", {}),
    "embedder with an adapter": ("embedder", LORA),
    "reranker": ("reranker", {}),
    "reranker with an adapter": ("reranker", LORA),
    "reader": ("reader", {}),
    "reader with an adapter": ("reader", LORA),
}


@dataclass(frozen=True)
class Places:
    """Bases, data and store of this file."""

    store: Path
    bases: dict[str, Path]
    data: dict[str, Path]

    def config(self, kind: str, name: str) -> TrainConfig:
        method, changes = METHODS[kind]
        short = {"optimisation": {"max_steps": 4, "learning_rate": 0.01}, "checkpoints": {"every_steps": 2}}
        name = f"{name}-{kind}".replace(" ", "-")
        return settings(method, self.bases[method], self.data[method], self.store, name, **short, **changes)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    folder = tmp_path_factory.mktemp("resume")
    return Places(folder / "store", *train_bases.of_methods(folder))


@pytest.mark.parametrize("kind", METHODS)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(places: Places, kind: str) -> None:
    whole, cut = (places.config(kind, name) for name in ("whole", "cut"))
    train_alone(whole)
    train_alone(cut, StopAfter(2))
    assert outcome(cut)["steps"] == 2
    reopen(cut)
    train_alone(cut)
    assert [one["step"] for one in attempts(cut)] == [0, 2]
    assert losses(cut) == losses(whole)
    assert [found.metric for found in checkpoints(cut)] == [found.metric for found in checkpoints(whole)]
