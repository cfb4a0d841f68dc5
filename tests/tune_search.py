"""A search under way over a store, with a stand-in for training."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ray_jobs.storage import LocalStorage
from ray_jobs.train.checkpoints import Checkpoint, Checkpoints
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.tune import outcome
from ray_jobs.train.tune.campaign import Campaign, Rungs
from ray_jobs.train.tune.config import ObjectiveConfig
from ray_jobs.train.tune.dimensions import Dimension
from ray_jobs.train.tune.halving import Halving
from ray_jobs.train.tune.objective import Objective
from ray_jobs.train.tune.proposals import proposals
from ray_jobs.train.tune.space import Space
from ray_jobs.train.tune.summary import TuneSummary
from ray_jobs.train.tune.trials import Trials

FOLDER = "tune/tuned/abc"
RECORD = Checkpoint(
    key="",
    step=0,
    workers=1,
    engine="ddp",
    stage=0,
    metric=None,
    metrics={},
    method="sft",
    base_revision="b",
    data_hash="d",
    files={},
)
OBJECTIVE = Objective(ObjectiveConfig(), "eval_loss", "min")
RATES: dict[str, Any] = {"optimisation.learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-1}}


def space_of(dimensions: dict[str, dict[str, Any]] | None = None) -> Space:
    made: dict[str, Dimension] = {
        key: TypeAdapter(Dimension).validate_python(item) for key, item in (dimensions or RATES).items()
    }
    return Space({"method": "sft", "base": "toy", "data": "talk", "name": "tuned", "store": "store"}, made)


def run_of(config: TrainConfig) -> str:
    return f"runs/tuned/{hashlib.blake2b(config.model_dump_json().encode(), digest_size=8).hexdigest()}"


class Search:
    """A campaign over a store, and a stand-in for training: a loss for each step."""

    def __init__(
        self,
        folder: Path,
        limit: int = 8,
        objective: Objective = OBJECTIVE,
        halving: Halving | None = None,
        max_steps: int | None = None,
        search: Any = "random",
        space: Space | None = None,
    ) -> None:
        self.storage = LocalStorage(folder)
        self.space = space or space_of()
        self.objective = objective
        self.trials = Trials(self.storage, FOLDER)
        source = proposals(search, self.space, objective.mode, 0)
        rungs = Rungs(halving, max_steps=max_steps)
        self.campaign = Campaign(self.space, objective, source, self.trials, rungs, self.storage, limit, run_of)

    def begin(self) -> tuple[int, TrainConfig]:
        found = self.campaign.next()
        assert found is not None
        self.storage.create(f"{run_of(found[1])}/tensorboard/{found[0]}", b"")
        return found

    def checkpoint(self, run: str, losses: list[float], steps: int) -> None:
        """What a run keeps that has been evaluated so often."""
        checkpoints, step = Checkpoints(self.storage, run), 10 * len(losses)
        log = [{"step": 10 * place, "eval_loss": loss, "epoch": 0.1} for place, loss in enumerate(losses, 1)]
        state = {"max_steps": steps, "log_history": [{"step": 1, "loss": 9.0}, *log]}
        record = RECORD.model_copy(update={"key": checkpoints.key(step, "a"), "step": step})
        self.storage.create(f"{record.key}/trainer_state.json", json.dumps(state).encode())
        checkpoints.commit(record)

    def train(self, number: int, losses: list[float], rows: tuple[dict[str, Any], ...] = (), done: int = 0) -> bool:
        """Evaluate after each tenth step, but for those `done` before; whether it came to its end."""
        steps = 10 * len(losses)
        for place, loss in list(enumerate(losses, 1))[done:]:
            if not self.campaign.evaluated(number, 10 * place, steps, {"eval_loss": loss}):
                self.campaign.released(number)
                return False
        history = [{"step": 10 * place, "eval_loss": loss} for place, loss in enumerate(losses, 1)]
        self.campaign.finished(number, steps, {"eval_loss": min(losses)}, rows, history)
        self.campaign.released(number)
        return True

    def write(self, complete: bool = True) -> TuneSummary:
        return outcome.write(self.storage, FOLDER, self.space, self.objective, self.trials, complete)

    def runs(self) -> set[str]:
        return {"/".join(item.key.split("/")[:3]) for item in self.storage.list("runs")}
