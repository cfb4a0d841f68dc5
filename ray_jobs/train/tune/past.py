"""What a trial that was cut has found out before, as its run keeps it.

Guaranteed: every evaluation up to the newest checkpoint, from which the run goes on, and none after it: those come
again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from ray_jobs.storage import Storage
from ray_jobs.train.checkpoints import Checkpoints


@dataclass(frozen=True, slots=True)
class PastEvaluation:
    """One evaluation during training."""

    step: int
    steps: int  # of the whole run
    metrics: dict[str, float]


def evaluations(storage: Storage, run: str) -> list[PastEvaluation]:
    """Those of the run in the folder `run`, by step; none where it has no checkpoint yet."""
    complete = Checkpoints(storage, run).complete()
    if not complete:
        return []
    state = json.loads(storage.read(f"{complete[-1].key}/trainer_state.json"))
    found = []
    for entry in state["log_history"]:
        metrics = {key: float(value) for key, value in entry.items() if key.startswith("eval_")}
        if metrics:
            found.append(PastEvaluation(int(entry["step"]), int(state["max_steps"]), metrics))
    return found
