"""Supervised fine-tuning of a causal language model on conversations or on prompts with completions.

Guaranteed: what is learned of a row is what ray_jobs.train.methods.turns says; packed rows do not see each other, and
networks that could not keep them apart are refused. Rows are cut at the length, with the token that ends them; those
that keep nothing to learn within it are left out; both are counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ray_jobs.models.kind import Kind
from ray_jobs.models.sentence_model import quiet_transformers
from ray_jobs.train.methods import Method, Metric, Shift, Task
from ray_jobs.train.methods.arguments import arguments
from ray_jobs.train.methods.language import check_base, check_kept, longest_row, over_the_base, tokenizer_of
from ray_jobs.train.methods.packed_batch import PackedCollator
from ray_jobs.train.methods.packing import check_packing
from ray_jobs.train.methods.rows import Rows, how_many, in_order, made_once, read_splits, steps_of
from ray_jobs.train.methods.tally import Tally
from ray_jobs.train.methods.turns import Conversation, check_template, learns, of_completion, of_conversation

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, Trainer

TOKENS = 2
"""Raised when other tokens would be made of the same rows."""
_LEARNED = ["input_ids", "labels"]
_OF_TOKENS: tuple[Metric, ...] = (("eval_loss", "min"),)
"""See ray_jobs.train.methods.token_mean; the trainer's other metrics are means of batches."""


class SupervisedFineTuning(Method):
    """TRL's trainer over rows that are tokens already."""

    name = "sft"
    kinds: tuple[str, ...] = ("messages", "completion")
    metric: Metric = ("eval_loss", "min")
    makes: Kind = "generator"
    judge = "language"
    fitting = "a causal language model"
    packs = True
    shifts: tuple[Shift, ...] = (
        Shift("sequence.max_length", "other tokens are measured, those before the cut", spares_evaluation=False),
        Shift("sequence.completion_only", "other tokens are measured", spares_evaluation=False),
        Shift("sequence.packing", "their figures are means of other batches", spares=_OF_TOKENS),
    )

    def trainer(self, task: Task) -> Trainer:
        """A trainer that is ready to run; raises UsageError where base, data and configuration do not fit."""
        from trl import SFTConfig

        from ray_jobs.train.methods.token_mean import TokenMeanTrainer, evened

        check_base(task)
        packing = task.config.sequence.packing
        by_lengths = packing and check_packing(task)
        tokenizer = tokenizer_of(task)
        train, validation, kind = read_splits(task, self)
        if kind == "messages":
            check_template(tokenizer, task.config.base)
        train, validation = (
            _sequences(rows, kind, name, tokenizer, task)
            for rows, name in ((train, "train"), (validation, "validation"))
        )
        config = SFTConfig(
            **arguments(task, steps_of(train, task), learning_rate=2e-5 if task.config.lora is None else 2e-4),
            max_length=longest_row(task),
            packing=by_lengths,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        with quiet_transformers():
            # By its path: under ZeRO-3 the weights must be sharded as they are read.
            return TokenMeanTrainer(
                model=str(task.base),
                args=config,
                train_dataset=in_order(train, task),
                eval_dataset=evened(validation, task.config.optimisation.micro_batch * task.place.world_size),
                processing_class=tokenizer,
                data_collator=PackedCollator(tokenizer.pad_token_id) if packing and not by_lengths else None,
                callbacks=list(task.callbacks),
                **over_the_base(task),
            )


def tokenised(
    tokenizer: PreTrainedTokenizerBase, kind: str, completion_only: bool, length: int
) -> Callable[[Rows], Rows]:
    """A function from a batch of rows to tokens and labels, cut at `length`; rows with nothing to learn go.

    Beside each row stands whether it was `cut`, and whether its last answer is learned alone (`last_alone`).
    """

    def as_tokens(rows: Rows) -> Rows:
        if kind == "messages":
            weights = rows.get("message_weights") or [None] * len(rows["messages"])
            told = zip(rows["messages"], weights, strict=True)
            found = [of_conversation(tokenizer, messages, completion_only, of_each) for messages, of_each in told]
        else:
            pairs = zip(rows["prompt"], rows["completion"], strict=True)
            found = [Conversation(of_completion(tokenizer, *pair, completion_only), False) for pair in pairs]
        learned = [
            (*cut, len(one.example[0]) > length, one.last_alone)
            for one in found
            if learns(cut := (one.example[0][:length], one.example[1][:length]))
        ]
        names = (*_LEARNED, "cut", "last_alone")
        return {name: [row[place] for row in learned] for place, name in enumerate(names)}

    return as_tokens


def packed(length: int) -> Callable[[Rows], Rows]:
    """A function from a batch of token rows to fewer, longer ones of `length` at most, with the lengths inside."""

    def pack(rows: Rows) -> Rows:
        from datasets import Dataset
        from trl import pack_dataset

        found: Rows = pack_dataset(Dataset.from_dict(rows), length, "bfd").to_dict()
        return found

    return pack


def _sequences(rows: Dataset, kind: str, name: str, tokenizer: PreTrainedTokenizerBase, task: Task) -> Dataset:
    sequence, length = task.config.sequence, longest_row(task)
    settings: dict[str, object] = {"kind": kind, "length": length, "completion_only": sequence.completion_only}
    settings["tokens"] = TOKENS
    as_tokens = tokenised(tokenizer, kind, sequence.completion_only, length)
    tokens = made_once(rows, as_tokens, task, settings, name)
    check_kept(len(tokens), name, length, task)
    task.tallies.splits[name] = Tally(
        rows=len(rows),
        left_out=len(rows) - len(tokens),
        why=f"nothing to learn within {length} tokens",
        cut=how_many(tokens, "cut"),
        max_length=length,
        last_alone=how_many(tokens, "last_alone"),
    )
    tokens = tokens.select_columns(_LEARNED)
    return made_once(tokens, packed(length), task, settings, f"{name}-packed") if sequence.packing else tokens
