"""What to do when a run lacks memory: which knobs take less of it.

Not guaranteed: that a lack of memory is told at all; a machine without any left may stop a worker without a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ray_jobs.errors import TandemError
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.methods import method_of

_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


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
    chosen, zero, in_batch = config.optimisation, config.zero, method_of(config.method).in_batch
    knobs = []
    if config.method == "embedder" and config.embedder.loss != "cached_mnrl":
        knobs.append("set embedder.loss=cached_mnrl and embedder.mini_batch")
    elif not in_batch and chosen.micro_batch > 1:
        knobs.append(f"lower optimisation.micro_batch={chosen.micro_batch} (the global batch stays)")
    if not chosen.gradient_checkpointing:
        knobs.append("set optimisation.gradient_checkpointing=true")
    if config.lora is None:
        knobs.append("set lora.rank=16")
    if zero.stage < 3:
        knobs.append(f"raise zero.stage={zero.stage} with more workers")
    if in_batch and chosen.micro_batch > 2:
        knobs.append(f"lower optimisation.micro_batch={chosen.micro_batch}, which starts the run anew")
    if zero.offload_optimizer == "none":
        knobs.append("set zero.stage=2 and zero.offload_optimizer=cpu")
    return "; or ".join(knobs or ["lower sequence.max_length", "choose a smaller base"])
