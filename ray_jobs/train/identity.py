"""Which run a configuration means: what is learned, from what; not who works on it, nor in how many parts of a step.

Guaranteed: a run goes on, and a search keeps its trials, with other values of the keys that are left out here; those
keys cannot be searched, since two trials that differ in one of them would be one run. Where a method learns from a
micro-batch as a whole its size counts, and where it does so over all workers their number counts, too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from ray_jobs.train.config import TrainConfig
from ray_jobs.train.methods import METHODS, method_of

FREE: dict[str, Any] = {
    "name": True,
    "store": True,
    "publish": True,
    "data": True,  # its hash counts
    "workers": True,
    "optimisation": {"micro_batch", "gradient_checkpointing"},
    "zero": {"persistence_threshold"},
    "checkpoints": {"keep", "max_failures", "log_every_steps"},
    "evaluation": True,
}
"""Keys that do not change what is learned; `micro_batch` does with methods that learn from it as a whole."""
_MICRO_BATCH = "optimisation.micro_batch"


def is_free(key: str, method: str) -> bool:
    """Whether a run of this method is the same run with another value of the dotted key, whatever else it sets."""
    block, _, name = key.partition(".")
    if key == _MICRO_BATCH and method in METHODS and method_of(method).in_batch:
        return False
    free = FREE.get(block, ())
    return free is True or name in free


def learned(config: TrainConfig) -> dict[str, Any]:
    """The keys of the configuration that change what is learned, as JSON has them."""
    found = config.model_dump(mode="json", exclude=FREE)
    micro_batch = config.optimisation.micro_batch
    method = method_of(config.method)
    if method.by_micro_batch(config):
        found["optimisation"]["micro_batch"] = micro_batch
    if method.over_workers:
        found["rows_at_a_time"] = micro_batch * config.workers.most
    return found


def digest(*parts: Any) -> str:
    """A short name for what these parts, as JSON has them, say."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=8).hexdigest()


def run_folder(config: TrainConfig, sources: Sequence[str]) -> str:
    """The folder of the run in the store; `sources` identify base, data and whatever else is read."""
    return f"runs/{config.name}/{digest(learned(config), *sources)}"
