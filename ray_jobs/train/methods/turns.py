"""Rows of language models as tokens, and which of them are learned: conversations, and prompts with completions.

Training and judges read the same tokens here. Guaranteed: with `completion_only` the labels are those of assistant
turns, or completions, alone, each with the tokens that end it; a prompt has the tokens that it has when the model
answers it. Where a template rewrites earlier turns once a conversation goes on (as those do that drop earlier
reasoning), the last answer alone is learned. Not guaranteed: rows whose very last answer cannot be told; they are
refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from ray_jobs.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # label of a token that is not learned
Message = Mapping[str, str]
Example = tuple[list[int], list[int]]
"""Tokens of a row and their labels."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation as tokens, and whether of its answers only the last one could be told."""

    example: Example
    last_alone: bool


def check_template(tokenizer: PreTrainedTokenizerBase, base: str, rows: str = "the rows") -> None:
    """Raise UsageError for a base that cannot be given a conversation; `rows` says which ones it would be given."""
    if not tokenizer.chat_template:
        raise UsageError(
            f"base={base} has no chat template, and {rows} are conversations; choose a base that is tuned for chat, "
            "save a chat_template.jinja in its folder, or prepare the data as prompt and completion"
        )


def of_conversation(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    completion_only: bool,
    weights: Sequence[int] | None = None,
) -> Conversation:
    """Tokens and labels of one conversation; a message whose weight is 0 is read and not learned.

    A turn is what the template adds to the conversation before it with the prompt for an answer, so no markers are
    needed in the template. Raises UsageError for a template that changes what came before the last answer.
    """
    ids = rendered(tokenizer, messages, False)
    answers = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    unlearned = {place for place in answers if weights is not None and not weights[place]}
    if not completion_only and not unlearned:
        return Conversation((ids, list(ids)), False)
    labels = [IGNORED] * len(ids) if completion_only else list(ids)
    for place in answers:
        if (place in unlearned) is completion_only:
            continue
        span = _span(tokenizer, messages, ids, place)
        if span is None:
            return Conversation(_last_alone(tokenizer, messages, ids, answers[-1] not in unlearned), True)
        labels[span] = ids[span] if completion_only else [IGNORED] * len(ids[span])
    return Conversation((ids, labels), False)


def of_messages(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    completion_only: bool,
    weights: Sequence[int] | None = None,
) -> Example:
    """Tokens and labels of one conversation; see `of_conversation`."""
    return of_conversation(tokenizer, messages, completion_only, weights).example


def of_answer(
    tokenizer: PreTrainedTokenizerBase, prompt: str, messages: Sequence[Message] | None, answer: str
) -> Example:
    """Tokens and labels of an answer to a prompt; `messages` are the prompt where it is a conversation, else None."""
    if messages is None:
        return of_completion(tokenizer, prompt, answer, True)
    whole = [*messages, {"role": "assistant", "content": answer}]
    return _last_alone(tokenizer, whole, rendered(tokenizer, whole, False), True)


def of_completion(tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str, completion_only: bool) -> Example:
    """Tokens and labels of a prompt with its completion and the token that ends it.

    The prompt is tokenised by itself, as when the model answers it.
    """
    start = list(tokenizer(prompt)["input_ids"])
    if start and start[-1] == tokenizer.eos_token_id and len(start) > 1:
        start = start[:-1]  # some tokenisers end every text
    rest = [*tokenizer(completion, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    return start + rest, ([IGNORED] * len(start) if completion_only else list(start)) + rest


def rendered(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], ask: bool) -> list[int]:
    """The tokens of a conversation by the template; with `ask` the prompt for an answer behind it."""
    try:
        text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=ask)
    except TemplateError as error:
        roles = ", ".join(str(message.get("role")) for message in messages)
        raise UsageError(
            f"the base's chat template refuses a conversation of {roles}: {error}; leave such rows out, or choose a "
            "base whose template takes them"
        ) from None
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def learns(example: Example) -> bool:
    """Whether anything is learned: the first token of a row is never predicted."""
    return any(label != IGNORED for label in example[1][1:])


def _span(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], ids: Sequence[int], place: int
) -> slice | None:
    """Where in the tokens of the whole conversation a turn stands; None where that cannot be told."""
    before = rendered(tokenizer, messages[:place], True)
    after = rendered(tokenizer, messages[: place + 1], False)
    told = after[: len(before)] == before and list(ids[: len(after)]) == after
    return slice(len(before), len(after)) if told else None


def _last_alone(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], ids: list[int], learned: bool
) -> Example:
    """The conversation with the labels of its last turn, which is the assistant's; without any unless `learned`."""
    span = _span(tokenizer, messages, ids, len(messages) - 1)
    if span is None:
        raise UsageError(
            "the base's chat template renders a conversation differently once it goes on, so that not even the tokens "
            "of its last turn can be told; choose another template, or (sft) set sequence.completion_only=false"
        )
    labels = [IGNORED] * len(ids)
    if learned:
        labels[span] = ids[span]
    return ids, labels
