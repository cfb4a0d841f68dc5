"""Supervised fine-tuning of a causal language model on conversations or on prompts with completions.

Guaranteed: with `completion_only` the loss is that of assistant turns, or completions, alone, each with the token that
ends it; a prompt has the tokens that it has when the model answers it; packed rows do not see each other. Rows that
keep nothing to learn within the length are left out. Not guaranteed: templates that render a conversation differently
once it goes on; they are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ray_jobs.errors import UsageError
from ray_jobs.models.kind import Kind
from ray_jobs.models.sentence_model import quiet_transformers
from ray_jobs.train.methods import Method, Metric, Shift, Task
from ray_jobs.train.methods.arguments import arguments
from ray_jobs.train.methods.language import check_base, longest_row, over_the_base, tokenizer_of
from ray_jobs.train.methods.rows import Rows, in_order, made_once, read_splits, steps_of

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, Trainer

IGNORED = -100  # label of a token that is not learned
Message = dict[str, str]
Example = tuple[list[int], list[int]]
"""Tokens of a row and their labels."""


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
        Shift("sequence.packing", "their loss is the mean of other batches"),
    )

    def trainer(self, task: Task) -> Trainer:
        """A trainer that is ready to run; raises UsageError where base, data and configuration do not fit."""
        from trl import SFTConfig, SFTTrainer

        check_base(task)
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
            packing=task.config.sequence.packing,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        with quiet_transformers():
            # By its path: under ZeRO-3 the weights must be sharded as they are read.
            return SFTTrainer(
                model=str(task.base),
                args=config,
                train_dataset=in_order(train, task),
                eval_dataset=validation,
                processing_class=tokenizer,
                callbacks=list(task.callbacks),
                **over_the_base(task),
            )


def check_template(tokenizer: PreTrainedTokenizerBase, base: str) -> None:
    """Raise UsageError for a base that cannot be given a conversation."""
    if not tokenizer.chat_template:
        raise UsageError(
            f"base={base} has no chat template, and the rows are conversations; choose a base that is tuned for chat, "
            "save a chat_template.jinja in its folder, or prepare the data as prompt and completion"
        )


def tokenised(
    tokenizer: PreTrainedTokenizerBase, kind: str, completion_only: bool, length: int
) -> Callable[[Rows], Rows]:
    """A function from a batch of rows to tokens and labels, cut at `length`; rows with nothing to learn go."""

    def as_tokens(rows: Rows) -> Rows:
        if kind == "messages":
            examples = [of_messages(tokenizer, messages, completion_only) for messages in rows["messages"]]
        else:
            pairs = zip(rows["prompt"], rows["completion"], strict=True)
            examples = [of_completion(tokenizer, *pair, completion_only) for pair in pairs]
        cut = [(ids[:length], labels[:length]) for ids, labels in examples]
        learned = [(ids, labels) for ids, labels in cut if any(label != IGNORED for label in labels[1:])]
        return {"input_ids": [ids for ids, _ in learned], "labels": [labels for _, labels in learned]}

    return as_tokens


def of_messages(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], completion_only: bool) -> Example:
    """Tokens and labels of one conversation; what is learned are the assistant's turns.

    A turn is what the template adds to the conversation before it with the prompt for an answer, so no markers are
    needed in the template. Raises UsageError for a template that changes what came before.
    """
    ids = _rendered(tokenizer, messages, False)
    if not completion_only:
        return ids, list(ids)
    labels = [IGNORED] * len(ids)
    for turn, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _rendered(tokenizer, messages[:turn], True)
        after = _rendered(tokenizer, messages[: turn + 1], False)
        if after[: len(before)] != before or ids[: len(after)] != after:
            raise UsageError(
                "the base's chat template renders a conversation differently once it goes on, so that the tokens of "
                f"turn {turn + 1} cannot be told; set sequence.completion_only=false, keep one answer a "
                "conversation, or choose another template"
            )
        labels[len(before) : len(after)] = ids[len(before) : len(after)]
    return ids, labels


def of_completion(tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str, completion_only: bool) -> Example:
    """Tokens and labels of a prompt with its completion and the token that ends it.

    The prompt is tokenised by itself, as when the model answers it.
    """
    start = list(tokenizer(prompt)["input_ids"])
    if start and start[-1] == tokenizer.eos_token_id and len(start) > 1:
        start = start[:-1]  # some tokenisers end every text
    rest = [*tokenizer(completion, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    return start + rest, ([IGNORED] * len(start) if completion_only else list(start)) + rest


def _rendered(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], ask: bool) -> list[int]:
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=ask)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


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
    as_tokens = tokenised(tokenizer, kind, sequence.completion_only, length)
    tokens = made_once(rows, as_tokens, task, settings, name)
    if len(tokens) == 0:
        raise UsageError(
            f"data={task.config.data}: no row of {name} keeps anything to learn within {length} tokens; raise "
            "sequence.max_length or shorten the prompts"
        )
    return made_once(tokens, packed(length), task, settings, f"{name}-packed") if sequence.packing else tokens
