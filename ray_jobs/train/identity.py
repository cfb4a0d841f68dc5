"""What a run is known by: what it learns, from what, and how; not by who works on it.

Guaranteed: runs that go on from each other's checkpoints would have the same losses, to the last digits. Where a method
learns from a micro-batch as a whole its size counts, and where it does so over all workers their number counts too.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ray_jobs.models.resolve import ResolvedModel
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.evaluation.sets import SetFile
from ray_jobs.train.methods import method_of

# What does not change what is learned: a run goes on with other values of these.
_FREE: dict[str, Any] = {
    "name": True,
    "store": True,
    "publish": True,
    "data": True,  # its hash counts
    "workers": True,
    "optimisation": {"micro_batch", "gradient_checkpointing"},
    "checkpoints": {"keep", "max_failures", "log_every_steps"},
    "evaluation": True,
}


def identity(
    config: TrainConfig, base_revision: str, data_hash: str, replayed: SetFile | None, start: ResolvedModel | None
) -> str:
    """Identifies what is learned, in 16 hexadecimal digits."""
    chosen = config.model_dump(mode="json", exclude=_FREE)
    method, micro_batch = method_of(config.method), config.optimisation.micro_batch
    if method.in_batch:
        chosen["optimisation"]["micro_batch"] = micro_batch
    if method.over_workers:
        chosen["rows_at_a_time"] = micro_batch * config.workers.most
    learned = [base_revision, data_hash, *([] if replayed is None else [replayed.sha256])]
    learned += [] if start is None else [start.revision]
    text = json.dumps([chosen, *learned], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
