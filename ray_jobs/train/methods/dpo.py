"""Direct preference optimisation: the chosen answer likelier than the rejected one, without leaving the base too far.

With adapters the reference is the base itself, the adapter switched off; without, a copy of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ray_jobs.models.kind import Kind
from ray_jobs.models.sentence_model import quiet_transformers
from ray_jobs.train.methods import Method, Metric, Shift, Task
from ray_jobs.train.methods.answers import answers_of, of_tokens
from ray_jobs.train.methods.arguments import arguments
from ray_jobs.train.methods.language import check_base, longest_row, over_the_base, tokenizer_of
from ray_jobs.train.methods.rows import in_order, read_splits, steps_of

if TYPE_CHECKING:
    from transformers import Trainer


class DirectPreferences(Method):
    """TRL's trainer over prompts with a chosen and a rejected answer."""

    name = "dpo"
    kinds: tuple[str, ...] = ("preference",)
    metric: Metric = ("eval_loss", "min")
    makes: Kind = "generator"
    judge = "language"
    fitting = "a causal language model"
    has_reference = True
    shifts: tuple[Shift, ...] = (
        Shift(
            "dpo.beta",
            "their loss has that factor",
            spares=(
                ("eval_rewards/accuracies", "max"),
                ("eval_mean_token_accuracy", "max"),
                ("eval_logps/chosen", "max"),
                ("eval_logps/rejected", "min"),
            ),
        ),
        Shift("sequence.max_length", "other tokens are measured, those before the cut", spares_evaluation=False),
    )

    def trainer(self, task: Task) -> Trainer:
        """A trainer that is ready to run; raises UsageError where base, data and configuration do not fit."""
        from trl import DPOConfig, DPOTrainer

        check_base(task)
        train, validation, _ = read_splits(task, self)
        tokenizer = tokenizer_of(task)
        train, validation = (
            answers_of(rows, ("chosen", "rejected"), name, tokenizer, task)
            for rows, name in ((train, "train"), (validation, "validation"))
        )
        config = DPOConfig(
            **arguments(task, steps_of(train, task), learning_rate=1e-6 if task.config.lora is None else 1e-5),
            max_length=longest_row(task),
            beta=task.config.dpo.beta,
        )
        with quiet_transformers():
            return of_tokens(DPOTrainer)(
                model=str(task.base),
                args=config,
                train_dataset=in_order(train, task),
                eval_dataset=validation,
                processing_class=tokenizer,
                callbacks=list(task.callbacks),
                **over_the_base(task),
            )
