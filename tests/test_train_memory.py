"""What is advised where a run lacks memory can be done."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from train_runs import settings

from ray_jobs.train.config import TrainConfig
from ray_jobs.train.identity import learned
from ray_jobs.train.memory import memory_remedy

LEARNED: list[dict[str, Any]] = [
    *({"method": method} for method in ("sft", "dpo", "kto", "reader")),
    *({"method": "embedder", "embedder": {"loss": loss}} for loss in ("mnrl", "cached_mnrl")),
    *({"method": "reranker", "reranker": {"loss": loss}} for loss in ("bce", "lambda")),
]
ZERO: list[dict[str, Any]] = [{"stage": stage} for stage in range(4)]
ZERO += [{"engine": "ddp"}, {"stage": 3, "offload_optimizer": "cpu", "offload_parameters": "cpu"}]
LORA = (None, {"rank": 4}, {"quantise": "4bit"}, {"start": "earlier"})


def config(method: str = "sft", **changes: Any) -> TrainConfig:
    return settings(method, Path("b"), Path("d"), Path("s"), "model", **changes)


def advised(text: str) -> list[dict[str, str]]:
    """The values that each piece of advice says to set."""
    pieces = (piece for piece in text.split("; or ") if piece.startswith("set "))
    return [dict(re.findall(r"([a-z_]+\.[a-z_]+)=(\w+)", piece)) for piece in pieces]


@pytest.mark.parametrize("chosen", LEARNED, ids=lambda chosen: "-".join(str(value) for value in chosen.values()))
def test_whatever_is_advised_is_allowed_and_new(chosen: dict[str, Any]) -> None:
    tried = 0
    for zero, lora, again, micro in itertools.product(ZERO, LORA, (False, True), (2, 8)):
        sizes = {"micro_batch": micro, "gradient_checkpointing": again}
        try:
            whole = config(**chosen, zero=zero, lora=lora, optimisation=sizes)
        except ValidationError:
            continue
        remedy = memory_remedy(whole)
        for wanted in advised(remedy):
            assert wanted
            changed = whole.model_dump()
            for key, value in wanted.items():
                section, name = key.split(".")
                assert str((changed[section] or {}).get(name)).lower() != value
                changed[section] = {**(changed[section] or {}), name: yaml.safe_load(value)}
            other = TrainConfig.model_validate(changed)
            is_told = f"={value} (starts the run anew)" in remedy
            assert is_told == (learned(other) != learned(whole)), (remedy, wanted)
            tried += 1
    assert tried >= 20


@pytest.mark.parametrize(("mini_batch", "part"), [(32, 4), (6, 3), (2, 1)])
def test_of_a_cached_loss_the_part_is_what_takes_memory(mini_batch: int, part: int) -> None:
    cached = {"loss": "cached_mnrl", "mini_batch": mini_batch}
    found = memory_remedy(config("embedder", embedder=cached, optimisation={"micro_batch": 8}))
    assert found.startswith(f"set embedder.mini_batch={part} (starts the run anew); or ")
    assert "gradient_checkpointing" not in found
    assert "zero.stage=1 (starts the run anew) with more workers" in found
    assert "offload" not in found


def test_the_loss_of_an_embedder_may_be_taken_in_parts() -> None:
    found = memory_remedy(config("embedder", optimisation={"micro_batch": 8}))
    assert found.startswith("set embedder.loss=cached_mnrl and embedder.mini_batch=4 (starts the run anew); or ")


def test_weights_that_are_sharded_stay_so_where_the_optimiser_is_to_be_offloaded() -> None:
    found = memory_remedy(config(zero={"stage": 3}))
    assert "set zero.offload_optimizer=cpu" in found
    assert "zero.stage" not in found


def test_where_no_knob_is_left_rows_and_base_are() -> None:
    found = memory_remedy(
        config(
            lora={"rank": 4},
            zero={"stage": 3, "offload_optimizer": "cpu"},
            optimisation={"micro_batch": 1, "gradient_checkpointing": True},
        )
    )
    assert found == "lower sequence.max_length; or choose a smaller base"
