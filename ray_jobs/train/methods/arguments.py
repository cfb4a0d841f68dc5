"""What the trainers of all methods are told alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray_jobs.errors import UsageError
from ray_jobs.train.config import LoraConfig, TrainConfig
from ray_jobs.train.methods import Task

if TYPE_CHECKING:
    import peft

_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
LONGEST = 1024  # tokens of a row, where neither the user nor the base says less


def arguments(task: Task, steps: int, learning_rate: float) -> dict[str, Any]:
    """Keyword arguments of `TrainingArguments` for a run of `steps`.

    `learning_rate` is the method's own, where the user sets none. To the trainer the run is one epoch, whose rows lie
    in the order in which they are learned.
    """
    config = task.config
    chosen, kept = config.optimisation, config.checkpoints
    on_cpu = task.place.device == "cpu"
    return {
        "output_dir": str(task.output),
        # Without it a trainer on CPUs silently trains as many models as there are workers.
        "use_cpu": on_cpu,
        "ddp_backend": "gloo" if on_cpu and task.place.world_size > 1 else None,
        "ddp_find_unused_parameters": False,
        "deepspeed": task.deepspeed,
        "bf16": task.place.precision == "bfloat16",
        "optim": "adamw_torch",
        "max_steps": steps,
        "train_sampling_strategy": "sequential",
        "per_device_train_batch_size": task.batches.micro_batch,
        # The same for any number of workers: some losses are means over batches.
        "per_device_eval_batch_size": chosen.micro_batch,
        "gradient_accumulation_steps": task.batches.accumulation,
        "learning_rate": chosen.learning_rate or learning_rate,
        "lr_scheduler_type": _SCHEDULES[chosen.schedule] if chosen.warmup else chosen.schedule,
        "warmup_steps": chosen.warmup,
        "weight_decay": chosen.weight_decay,
        "max_grad_norm": chosen.max_grad_norm,
        "activation_checkpointing": chosen.gradient_checkpointing,
        "logging_strategy": "steps",
        "logging_steps": kept.log_every_steps,
        # A loss that is no number is reported as it is, not replaced by an average.
        "logging_nan_inf_filter": False,
        "eval_strategy": "steps",
        "eval_steps": kept.evaluate_every,
        "save_strategy": "steps",
        "save_steps": kept.every_steps,
        "seed": config.seed,
        "data_seed": config.seed,
        "dataloader_pin_memory": not on_cpu,
        "report_to": [],
        "disable_tqdm": True,
        "push_to_hub": False,
    }


def adapter(lora: LoraConfig, task_type: str, modules_to_save: tuple[str, ...] = ()) -> peft.LoraConfig:
    """PEFT's configuration of an adapter; `modules_to_save` are trained and kept whole."""
    import peft

    return peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
        use_dora=lora.dora,
        use_rslora=lora.rslora,
        task_type=task_type,
        modules_to_save=list(modules_to_save) or None,
    )


def row_length(config: TrainConfig, allowed: int | None) -> int:
    """Tokens of a row at most, where the base takes `allowed`; raises UsageError where the user asks for more."""
    asked = config.sequence.max_length
    if asked is not None and allowed is not None and asked > allowed:
        raise UsageError(
            f"sequence.max_length={asked} is above the {allowed} positions of base={config.base}: lower it"
        )
    return asked or min(LONGEST, allowed or LONGEST)
