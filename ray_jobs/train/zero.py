"""From the small typed configuration of ZeRO to DeepSpeed's own.

Guaranteed: the optimiser is torch's AdamW, so that nothing is compiled; sizes of batches, clipping and precision are
filled in by the trainer, so that they cannot differ from it; where gradients are sharded, those of the micro-batches of
a step are summed in float32, whatever the precision. Impossible pairs are refused by `TrainConfig`. Not guaranteed:
that sum at stages 0 and 1, where DeepSpeed has it only with an optimiser of its own for bfloat16.
"""

from __future__ import annotations

from typing import Any

from ray_jobs.train.config import ZeroConfig

DeepSpeedConfig = dict[str, Any]
_NEVER = 1 << 60  # steps between two of DeepSpeed's own reports


def deepspeed_config(zero: ZeroConfig, load_universal: bool = False) -> DeepSpeedConfig | None:
    """DeepSpeed's configuration; None where torch's DDP runs the steps.

    `load_universal` says that the checkpoint to resume from was made for another number of workers and is converted.
    """
    if not zero.uses_deepspeed:
        return None
    sharding: dict[str, Any] = {"stage": zero.stage}
    if zero.offload_optimizer != "none":
        sharding["offload_optimizer"] = {"device": zero.offload_optimizer}
    if zero.offload_parameters != "none":
        sharding["offload_param"] = {"device": zero.offload_parameters}
    if zero.stage == 3:
        # Without it no weights are written at all.
        sharding["stage3_gather_16bit_weights_on_model_save"] = True
        sharding["stage3_param_persistence_threshold"] = zero.persistence_threshold
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "train_batch_size": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "zero_optimization": sharding,
        "zero_allow_untested_optimizer": True,
        # DeepSpeed's own optimiser for the CPU compiles for minutes.
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": _NEVER,
        # Summed in bfloat16, small gradients after a large one would be lost.
        **({"data_types": {"grad_accum_dtype": "fp32"}} if zero.stage >= 2 else {}),
        **({"checkpoint": {"load_universal": True}} if load_universal else {}),
    }
