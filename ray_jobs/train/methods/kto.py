"""Kahneman-Tversky optimisation: answers marked good or bad, without pairs.

The loss compares each answer with the one before it in its micro-batch, given to the same prompt. Its KL term is
estimated over the rows that all workers run at a time. Not guaranteed, therefore: the same losses for another size of
micro-batch or another number of workers; a run does not go on with those, it is another one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ray_jobs.errors import UsageError
from ray_jobs.models.kind import Kind
from ray_jobs.models.sentence_model import quiet_transformers
from ray_jobs.train.methods import Method, Metric, Shift, Task
from ray_jobs.train.methods.answers import answers_of, of_tokens
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
        tokenizer = tokenizer_of(task)
        train, validation = (
            answers_of(rows, ("completion",), name, tokenizer, task)
            for rows, name in ((train, "train"), (validation, "validation"))
        )
        config = KTOConfig(
            **arguments(task, steps_of(train, task), learning_rate=1e-6 if task.config.lora is None else 1e-5),
            max_length=longest_row(task),
            beta=task.config.kto.beta,
        )
        with quiet_transformers():
            trainer = of_tokens(KTOTrainer)(
                model=str(task.base),
                args=config,
                train_dataset=in_order(train, task),
                eval_dataset=validation,
                processing_class=tokenizer,
                callbacks=list(task.callbacks),
                **over_the_base(task),
            )
        trainer.data_collator = beside_neighbours(trainer.data_collator)
        return trainer


def beside_neighbours(collator: Callable[[list[dict[str, Any]]], Any]) -> Callable[[Sequence[Mapping[str, Any]]], Any]:
    """The collator, given beside each row of a micro-batch the answer of the one before it, as TRL's loss expects."""

    def collate(rows: Sequence[Mapping[str, Any]]) -> Any:
        before = (rows[-1], *rows[:-1])
        answers = [{"KL_completion_ids": other["completion_ids"]} for other in before]
        return collator([{**row, **answer} for row, answer in zip(rows, answers, strict=True)])

    return collate


def check_labels(rows: Dataset, data: str) -> None:
    """Raise UsageError where all labels are equal: there is nothing to tell apart."""
    if len(found := set(rows["label"])) < 2:
        raise UsageError(
            f"data={data}: every training row has label={found.pop()}; expected wanted and unwanted answers: add rows "
            "of the other label, or use method=sft"
        )
