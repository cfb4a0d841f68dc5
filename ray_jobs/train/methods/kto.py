"""Kahneman-Tversky optimisation: answers marked good or bad, without pairs.

The loss compares each answer with those of its neighbours, so rows are put in order before anything else is done. Its
KL term is estimated over the rows that all workers run at a time. Not guaranteed, therefore: the same losses for another
size of micro-batch or another number of workers; a run does not go on with those, it is another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ray_jobs.errors import UsageError
from ray_jobs.models.kind import Kind
from ray_jobs.models.sentence_model import quiet_transformers
from ray_jobs.train.methods import Method, Metric, Shift, Task
from ray_jobs.train.methods.arguments import arguments
from ray_jobs.train.methods.language import check_base, longest_row, over_the_base, tokenizer_of
from ray_jobs.train.methods.rows import in_order, read_splits, steps_of

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import Trainer


class LabelledPreferences(Method):
    """TRL's trainer over prompts with an answer and whether it is wanted."""

    name = "kto"
    kinds: tuple[str, ...] = ("label",)
    metric: Metric = ("eval_loss", "min")
    makes: Kind = "generator"
    judge = "language"
    fitting = "a causal language model"
    in_batch = "the KL term compares rows"
    over_workers = True
    has_reference = True
    shifts: tuple[Shift, ...] = (
        Shift(
            "kto.beta",
            "their loss has that factor",
            spares=(("eval_logps/chosen", "max"), ("eval_logps/rejected", "min")),
        ),
        Shift("optimisation.micro_batch", "the KL term of their loss is that of so many rows"),
        Shift("sequence.max_length", "other tokens are measured, those before the cut", spares_evaluation=False),
    )

    def trainer(self, task: Task) -> Trainer:
        """A trainer that is ready to run; raises UsageError where base, data and configuration do not fit."""
        from trl import KTOConfig, KTOTrainer

        check_base(task)
        train, validation, _ = read_splits(task, self)
        check_labels(train, task.config.data)
        columns = ["prompt", "completion", "label"]
        config = KTOConfig(
            **arguments(task, steps_of(train, task), learning_rate=1e-6 if task.config.lora is None else 1e-5),
            max_length=longest_row(task),
            beta=task.config.kto.beta,
        )
        with quiet_transformers():
            return KTOTrainer(
                model=str(task.base),
                args=config,
                train_dataset=in_order(train.select_columns(columns), task),
                eval_dataset=validation.select_columns(columns),
                processing_class=tokenizer_of(task),
                callbacks=list(task.callbacks),
                **over_the_base(task),
            )


def check_labels(rows: Dataset, data: str) -> None:
    """Raise UsageError where all labels are equal: there is nothing to tell apart."""
    if len(found := set(rows["label"])) < 2:
        raise UsageError(
            f"data={data}: every training row has label={found.pop()}; expected wanted and unwanted answers: add rows "
            "of the other label, or use method=sft"
        )
