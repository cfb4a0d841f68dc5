"""TrainConfig and the configuration of DeepSpeed: impossible pairs are refused before work, with a remedy."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ray_jobs.train.config import TrainConfig, ZeroConfig
from ray_jobs.train.zero import deepspeed_config


def config(**changes: Any) -> TrainConfig:
    chosen = {"method": "sft", "base": "base", "data": "data", "name": "model", **changes}
    return TrainConfig.model_validate(chosen)


IMPOSSIBLE: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    (
        {"method": "embedder", "embedder": {"loss": "cached_mnrl"}, "zero": {"stage": 2}},
        ("embedder.loss=cached_mnrl", "zero.stage=2", "set zero.stage=1"),
    ),
    (
        {"method": "embedder", "embedder": {"loss": "cached_mnrl"}, "zero": {"stage": 3}},
        ("embedder.loss=cached_mnrl", "zero.stage=3", "set zero.stage=1"),
    ),
    (
        {
            "method": "embedder",
            "embedder": {"loss": "cached_mnrl"},
            "optimisation": {"gradient_checkpointing": True},
        },
        ("embedder.loss=cached_mnrl", "optimisation.gradient_checkpointing=true", "lower embedder.mini_batch"),
    ),
    (
        {"zero": {"stage": 2, "offload_parameters": "cpu"}},
        ("zero.offload_parameters=cpu", "zero.stage=2", "set zero.stage=3"),
    ),
    (
        {"zero": {"stage": 1, "offload_optimizer": "cpu"}},
        ("zero.offload_optimizer=cpu", "zero.stage=1", "set zero.stage=2"),
    ),
    ({"zero": {"stage": 1, "engine": "ddp"}}, ("zero.engine=ddp", "zero.stage=1", "set zero.engine=deepspeed")),
    (
        {"lora": {"quantise": "4bit"}, "zero": {"stage": 3}},
        ("lora.quantise=4bit", "zero.stage=3", "set zero.stage=2"),
    ),
    (
        {"method": "reranker", "lora": {"quantise": "4bit"}},
        ("lora.quantise=4bit", "method=reranker", "set lora.quantise=none"),
    ),
    ({"method": "dpo", "sequence": {"packing": True}}, ("sequence.packing=true", "method=dpo", "leave")),
    ({"method": "embedder", "sequence": {"packing": True}}, ("sequence.packing=true", "method=embedder", "leave")),
    ({"method": "kto", "optimisation": {"micro_batch": 1}}, ("method=kto", "optimisation.micro_batch=1", "=2")),
    (
        {"optimisation": {"global_batch": 32, "micro_batch": 12}, "workers": {"count": 2}},
        ("optimisation.global_batch=32", "optimisation.micro_batch=12", "set optimisation.micro_batch=8"),
    ),
    (
        {"optimisation": {"global_batch": 32, "micro_batch": 8}, "workers": {"min": 5, "max": 7}},
        (
            "optimisation.global_batch=32",
            "optimisation.micro_batch=8",
            "5 to 7 workers",
            "optimisation.global_batch=56",
        ),
    ),
    (
        {"method": "embedder", "optimisation": {"global_batch": 32, "micro_batch": 16}, "workers": {"count": 4}},
        ("optimisation.global_batch=32", "optimisation.micro_batch=16", "4 workers", "optimisation.global_batch=64"),
    ),
    (
        {"method": "kto", "workers": {"min": 1, "max": 2}},
        ("method=kto", "workers.min=1 and workers.max=2", "learns something else", "set workers.count"),
    ),
    ({"optimisation": {"global_batch": 4}}, ("optimisation.micro_batch=8", "optimisation.global_batch=4", "lower")),
    ({"workers": {"min": 2}}, ("workers.min=2", "workers.max=None", "set both")),
    ({"workers": {"min": 3, "max": 2}}, ("workers.min=3", "workers.max=2", "swap")),
    ({"checkpoints": {"metric": "eval_loss"}}, ("checkpoints.metric=eval_loss", "checkpoints.mode=None", "min or max")),
    (
        {"checkpoints": {"every_steps": 10, "evaluate_every_steps": 4}},
        ("checkpoints.every_steps=10", "checkpoints.evaluate_every_steps=4", "divisor"),
    ),
    (
        {"optimisation": {"disable_dropout": True}, "lora": {"dropout": 0.1}},
        ("optimisation.disable_dropout=true", "lora.dropout=0.1", "leave one of them out"),
    ),
    ({"method": "dpo", "lora": {"dropout": 0.1}}, ("lora.dropout=0.1", "method=dpo", "leave lora.dropout out")),
    ({"method": "kto", "lora": {"dropout": 0.1}}, ("lora.dropout=0.1", "method=kto", "leave lora.dropout out")),
    ({"method": "dpo", "lora": {"start": "a"}}, ("lora.start=a", "method=dpo", "merge it first")),
    ({"lora": {"start": "a"}, "zero": {"stage": 3}}, ("lora.start=a", "zero.stage=3", "set zero.stage=2")),
    ({"publish": "adapter"}, ("publish=adapter", "lora", "publish=auto")),
    ({"method": "embedder", "lora": {}, "publish": "adapter"}, ("publish=adapter", "method=embedder", "merged")),
    (
        {"lora": {"quantise": "4bit"}, "workers": {"gpus_per_worker": 0}},
        ("lora.quantise=4bit", "workers.gpus_per_worker=0", "set workers.gpus_per_worker=1 or lora.quantise=none"),
    ),
    ({"lora": {"quantise": "4bit"}, "publish": "merged"}, ("publish=merged", "lora.quantise=4bit", "publish=adapter")),
]


@pytest.mark.parametrize(("changes", "named"), IMPOSSIBLE, ids=[" + ".join(named[:2]) for _, named in IMPOSSIBLE])
def test_an_impossible_pair_is_refused_naming_both_keys_and_a_remedy(
    changes: dict[str, Any], named: tuple[str, ...]
) -> None:
    with pytest.raises(ValidationError) as refused:
        config(**changes)
    message = refused.value.errors()[0]["msg"]
    assert all(part in message for part in named), message
    assert "\n" not in message


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"extra"):
        config(zero={"level": 2})


@pytest.mark.parametrize("name", ["", "../up", "a/b", "-x", "x" * 129])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        config(name=name)


def test_every_field_has_a_description() -> None:
    def bare(model: Any, path: str) -> list[str]:
        found = []
        for name, field in model.model_fields.items():
            inner = getattr(field.annotation, "model_fields", None)
            if inner is not None:
                found += bare(field.annotation, f"{path}{name}.")
            elif not field.description:
                found.append(f"{path}{name}")
        return found

    assert bare(TrainConfig, "") == []


def test_nothing_sharded_is_trained_by_ddp() -> None:
    assert deepspeed_config(ZeroConfig()) is None


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_each_stage_is_passed_on_and_the_optimiser_is_not_deepspeeds_own(stage: int) -> None:
    found = deepspeed_config(ZeroConfig.model_validate({"stage": stage, "engine": "deepspeed"}))
    assert found is not None
    assert found["zero_optimization"]["stage"] == stage
    assert "optimizer" not in found
    assert found["zero_force_ds_cpu_optimizer"] is False


@pytest.mark.parametrize(("stage", "summed"), [(0, None), (1, None), (2, "fp32"), (3, "fp32")])
def test_sharded_gradients_of_micro_batches_are_summed_in_float32(stage: int, summed: str | None) -> None:
    found = deepspeed_config(ZeroConfig.model_validate({"stage": stage, "engine": "deepspeed"}))
    assert found is not None
    assert found.get("data_types", {}).get("grad_accum_dtype") == summed


def test_stage_3_gathers_the_weights_that_it_saves() -> None:
    found = deepspeed_config(ZeroConfig(stage=3, offload_parameters="cpu", offload_optimizer="cpu"))
    assert found is not None
    assert found["zero_optimization"] == {
        "stage": 3,
        "offload_optimizer": {"device": "cpu"},
        "offload_param": {"device": "cpu"},
        "stage3_gather_16bit_weights_on_model_save": True,
        "stage3_param_persistence_threshold": 100_000,
    }


def test_a_converted_checkpoint_is_loaded_in_the_universal_form() -> None:
    found = deepspeed_config(ZeroConfig(stage=2), load_universal=True)
    assert found is not None
    assert found["checkpoint"] == {"load_universal": True}
