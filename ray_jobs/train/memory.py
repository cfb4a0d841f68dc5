"""What to do when a run lacks memory: which knobs take less of it.

Guaranteed: what is advised is allowed beside the rest of the configuration, and says where it makes another run, which
does not go on from the checkpoints of this one. Not guaranteed: that a lack of memory is
told at all; a machine without any left may stop a worker without a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from ray_jobs.errors import TandemError
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.identity import learned
from ray_jobs.train.methods import method_of

_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
_CACHED = "cached_mnrl"
_ANEW = " (starts the run anew)"


@contextmanager
def memory_explained(config: TrainConfig) -> Iterator[None]:
    """Turn a lack of memory into an error that says which knob to turn."""
    with _told(f"out of memory: {memory_remedy(config)}"):
        yield


@contextmanager
def measuring_explained(config: TrainConfig) -> Iterator[None]:
    """Turn a lack of memory while a trained run is measured into an error that says how to publish it."""
    with _told(measuring_remedy(config)):
        yield


def measuring_remedy(config: TrainConfig) -> str:
    """How a run is published whose measuring lacks memory."""
    chosen = config.evaluation
    knobs = ["with evaluation.test=false"] if chosen.test else []
    knobs += ["without evaluation.retained"] if chosen.retained else []
    return (
        "out of memory while measuring before and after; the run is trained and its checkpoints are kept: the same "
        f"command {' and '.join(knobs)} publishes the model unmeasured and trains nothing again, and the same "
        "command on workers with more memory measures it"
    )


@contextmanager
def _told(remedy: str) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(sign in str(error).lower() for sign in _NO_MEMORY):
            raise
        raise TandemError(remedy) from error


def memory_remedy(config: TrainConfig) -> str:
    """Which knobs take less memory, those that cost least first."""
    micro_batch, counts = config.optimisation.micro_batch, method_of(config.method).by_micro_batch(config)
    cached = config.method == "embedder" and config.embedder.loss == _CACHED
    part = min(micro_batch, config.embedder.mini_batch) if cached else micro_batch
    knobs = []
    if config.method == "embedder" and part > 1:
        knobs += _set(config, {"embedder.loss": _CACHED, "embedder.mini_batch": part // 2})
    elif not counts and micro_batch > 1:
        knobs.append(f"lower optimisation.micro_batch={micro_batch} (the global batch stays)")
    if not config.optimisation.gradient_checkpointing:
        knobs += _set(config, {"optimisation.gradient_checkpointing": True})
    if config.lora is None:
        knobs += _set(config, {"lora.rank": 16})
    stages = [_set(config, {"zero.stage": stage}) for stage in (2, 1, 3) if stage > config.zero.stage]
    knobs += [f"{knob} with more workers" for knob in next(filter(None, stages), [])]
    if counts and micro_batch > 2 and not cached:
        knobs.append(f"lower optimisation.micro_batch={micro_batch}{_ANEW}")
    if config.zero.offload_optimizer == "none":
        knobs += _set(config, {"zero.stage": max(2, config.zero.stage), "zero.offload_optimizer": "cpu"})
    return "; or ".join(knobs or ["lower sequence.max_length", "choose a smaller base"])


def _set(config: TrainConfig, wanted: dict[str, Any]) -> list[str]:
    """The advice to set these keys; none where the configuration refuses them."""
    changed = config.model_dump(exclude_unset=True)
    advised = []
    for key, value in wanted.items():
        section, _, name = key.partition(".")
        changed[section] = {**(changed.get(section) or {}), name: value}
        now = getattr(getattr(config, section), name, None)
        if now != value:
            advised.append(f"{key}={str(value).lower()}")
    try:
        other = TrainConfig.model_validate(changed)
    except ValidationError:
        return []
    return [f"set {' and '.join(advised)}{'' if learned(other) == learned(config) else _ANEW}"]
