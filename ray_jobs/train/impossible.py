"""Pairs of keys of a fine-tuning run that cannot be, as far as the configuration alone tells.

Guaranteed: each is told in one line that names both keys and a remedy. Not guaranteed: what depends on the model, the
data or the machine; that is checked where it is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ray_jobs.train import sharing
from ray_jobs.train.methods import METHODS, Method, method_of

if TYPE_CHECKING:
    from ray_jobs.train.config import TrainConfig


def problems(config: TrainConfig) -> Iterator[str]:
    """Why a run with this configuration is impossible; empty where nothing is known against it."""
    method = method_of(config.method)
    yield from _batch_problems(config, method)
    yield from _sharding_problems(config)
    yield from _method_problems(config, method)
    yield from _publishing_problems(config, method)


def _batch_problems(config: TrainConfig, method: Method) -> list[str]:
    sizes, workers = config.optimisation, config.workers
    found = []
    if method.in_batch and sizes.micro_batch < 2:
        found.append(
            f"method={config.method} with optimisation.micro_batch={sizes.micro_batch}: {method.in_batch} of a "
            "micro-batch; set optimisation.micro_batch=2 or more"
        )
    if method.over_workers and workers.least < workers.most:
        found.append(
            f"method={config.method} with workers.min={workers.least} and workers.max={workers.most}: "
            f"{method.in_batch} of all workers, so that another number of them learns something else; set "
            "workers.count in place of both"
        )
    unshared = sharing.problem(config)
    return found if unshared is None else [*found, unshared]


def _sharding_problems(config: TrainConfig) -> list[str]:
    found = []
    stage = config.zero.stage
    if config.method == "embedder" and config.embedder.loss == "cached_mnrl":
        if stage >= 2:
            found.append(
                f"embedder.loss=cached_mnrl with zero.stage={stage}: the cached loss runs backward in parts, which "
                "sharded gradients do not allow; set zero.stage=1 or embedder.loss=mnrl"
            )
        if config.optimisation.gradient_checkpointing:
            found.append(
                "embedder.loss=cached_mnrl with optimisation.gradient_checkpointing=true: both compute activations "
                "again; leave gradient_checkpointing out and lower embedder.mini_batch"
            )
    if config.lora is not None and config.lora.quantise != "none" and stage == 3:
        found.append(
            f"lora.quantise={config.lora.quantise} with zero.stage=3: quantised weights cannot be sharded; set "
            "zero.stage=2 or lora.quantise=none"
        )
    return found


def _method_problems(config: TrainConfig, method: Method) -> list[str]:
    found = []
    if config.sequence.packing and not method.packs:
        able = " and ".join(name for name in METHODS if method_of(name).packs)
        found.append(
            f"sequence.packing=true with method={config.method}: only {able} packs rows; leave sequence.packing out"
        )
    if config.lora is not None and config.lora.quantise != "none" and method.makes != "generator":
        able = ", ".join(name for name in METHODS if method_of(name).makes == "generator")
        found.append(
            f"lora.quantise={config.lora.quantise} with method={config.method}: only language models "
            f"({able}) are trained over a quantised base; set lora.quantise=none"
        )
    if config.lora is not None and config.lora.quantise != "none" and config.workers.gpus_per_worker == 0:
        found.append(
            f"lora.quantise={config.lora.quantise} with workers.gpus_per_worker=0: the library of quantised weights "
            "needs a GPU; set workers.gpus_per_worker=1 or lora.quantise=none"
        )
    if config.lora is not None and config.lora.start is not None:
        if method.has_reference:
            found.append(
                f"lora.start={config.lora.start} with method={config.method}: the reference is the base without an "
                "adapter, not with that one; merge it first (tandem models merge) and name the result as base"
            )
        if config.zero.stage == 3:
            found.append(f"lora.start={config.lora.start} with zero.stage=3: sharded weights; set zero.stage=2")
    if config.optimisation.disable_dropout and config.lora is not None and config.lora.dropout:
        found.append(
            f"optimisation.disable_dropout=true with lora.dropout={config.lora.dropout}: leave one of them out"
        )
    if method.has_reference and config.lora is not None and config.lora.dropout:
        found.append(
            f"lora.dropout={config.lora.dropout} with method={config.method}: it trains without any dropout, so that "
            "model and reference are compared as they are; leave lora.dropout out"
        )
    return found


def _publishing_problems(config: TrainConfig, method: Method) -> list[str]:
    found = []
    if config.publish == "adapter" and config.lora is None:
        found.append("publish=adapter without lora: all weights are trained; set lora or publish=auto")
    if config.publish == "adapter" and method.makes == "embedder":
        found.append(
            f"publish=adapter with method={config.method}: embedders are loaded whole; set publish=merged or "
            "publish=auto"
        )
    if config.publish == "merged" and config.lora is not None and config.lora.quantise != "none":
        found.append(
            f"publish=merged with lora.quantise={config.lora.quantise}: an adapter of a quantised base is kept as it "
            "is; set publish=adapter"
        )
    return found
