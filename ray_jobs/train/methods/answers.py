"""Preferences as tokens: prompts with their answers, apart, as TRL's trainers take them.

Guaranteed: a prompt that is a conversation is given to the base by its chat template with the prompt for an answer, and
one that is a text as that text: the tokens are those by which judges measure the rows. Rows whose prompt leaves no room
for an answer are left out before the run is planned, longer ones are cut as they are batched; both are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ray_jobs.train.methods import CONVERSATION, Task
from ray_jobs.train.methods.language import check_kept, longest_row
from ray_jobs.train.methods.rows import Rows, how_many, made_once
from ray_jobs.train.methods.tally import Tally
from ray_jobs.train.methods.turns import IGNORED, check_template, of_answer

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, Trainer


def answers_of(
    rows: Dataset, answers: Sequence[str], name: str, tokenizer: PreTrainedTokenizerBase, task: Task
) -> Dataset:
    """The rows of a split as `prompt_ids` and, of each column of `answers`, its tokens; other columns but texts go.

    Raises UsageError where conversations come to a base without a chat template, or no row leaves room for an answer.
    """
    if CONVERSATION in rows.column_names and rows.data.column(CONVERSATION).null_count < len(rows.data):
        check_template(tokenizer, task.config.base, "the prompts")
    length = longest_row(task)
    settings: dict[str, object] = {"answers": list(answers), "length": length}
    made = made_once(rows, tokenised(tokenizer, answers, length), task, settings, f"{name}-answers")
    check_kept(len(made), name, length, task)
    left_out = len(rows) - len(made)
    task.tallies.splits[name] = Tally(
        len(rows), left_out, "the prompt leaves no room for an answer", how_many(made, "cut"), max_length=length
    )
    return made.remove_columns("cut")


def tokenised(tokenizer: PreTrainedTokenizerBase, answers: Sequence[str], length: int) -> Callable[[Rows], Rows]:
    """A function from a batch of rows to the tokens of prompts and `answers`; prompts of `length` and more go.

    Beside each row stand its label, where it has one, and whether it will be `cut`.
    """
    names = [ids_of(answer) for answer in answers]

    def as_tokens(rows: Rows) -> Rows:
        prompts = rows.get(CONVERSATION) or [None] * len(rows["prompt"])
        labels = {"label": rows["label"]} if "label" in rows else {}
        found: Rows = {name: [] for name in ("prompt_ids", *names, *labels, "cut")}
        for place, (prompt, messages) in enumerate(zip(rows["prompt"], prompts, strict=True)):
            examples = [of_answer(tokenizer, prompt, messages, rows[answer][place]) for answer in answers]
            asked = [token for token, label in zip(*examples[0], strict=True) if label == IGNORED]
            if len(asked) >= length:
                continue
            found["prompt_ids"].append(asked)
            for name, (ids, _) in zip(names, examples, strict=True):
                found[name].append(ids[len(asked) :])
            for name, of_all in labels.items():
                found[name].append(of_all[place])
            found["cut"].append(any(len(ids) > length for ids, _ in examples))
        return found

    return as_tokens


def ids_of(answer: str) -> str:
    """The column with the tokens of an answer, as TRL names it."""
    return f"{answer}_ids"


def of_tokens(trainer: type[Trainer]) -> type[Trainer]:
    """The class `trainer` of TRL over rows that are tokens already."""

    class OfTokens(trainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *given: Any, **named: Any) -> Any:
            return dataset

    OfTokens.__name__ = trainer.__name__
    return OfTokens
