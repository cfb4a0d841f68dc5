"""Prompts of preferences: texts, or conversations that the base's chat template is to render.

    prompt: text,      answer: text               the prompt as it is
    prompt: messages,  answer: messages           TRL's conversational form; a text as prompt is the user's turn
    answer: messages                              the prompt is what comes before its last turn

Guaranteed: a prepared row has its prompt as one text, and as messages where it was a conversation.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from ray_jobs.train.data.kind import Content, Measured, Turn
from ray_jobs.train.data.messages import TURNS, check_order, read_turns
from ray_jobs.train.data.raw_row import RawRow

MESSAGES = "prompt_messages"
PROMPT_MESSAGES = pa.field(MESSAGES, TURNS)  # null where the prompt is a text


def asked_by(row: RawRow) -> Content:
    """The prompt of a row whose answers are texts: a text, or of a prepared row its messages too."""
    if row.value(MESSAGES) is None:
        return {"prompt": row.text("prompt")}
    turns = read_turns(row, row.value(MESSAGES), MESSAGES)
    check_order([*turns, {"role": "assistant", "content": ""}])
    return {"prompt": as_text(turns), MESSAGES: turns}


def spoken(row: RawRow, name: str) -> list[Turn]:
    """The whole conversation that ends with the answer in the column `name`, which is a list of messages."""
    turns, before = read_turns(row, row.value(name), name), _before(row)
    whole = turns if turns[: len(before)] == before else [*before, *turns]
    check_order(whole)
    return whole


def measured_with(content: Content, *answers: str) -> dict[str, tuple[Measured, ...]]:
    """The prompt, and the prompt with each answer, as the model will see them."""
    turns: list[Turn] | None = content.get(MESSAGES)
    if turns is None:
        prompt = content["prompt"]
        return {"prompt": (prompt,), "whole": tuple(prompt + content[name] for name in answers)}
    said = [{"role": "assistant", "content": content[name]} for name in answers]
    return {"prompt": (turns,), "whole": tuple([*turns, answer] for answer in said)}


def as_text(turns: Sequence[Turn]) -> str:
    """A conversation as one text, by which rows are compared and people read them."""
    if len(turns) == 1:
        return turns[0]["content"]
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


def is_list(value: object) -> bool:
    """Whether a value is a list, as of messages."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def _before(row: RawRow) -> list[Turn]:
    prompt = row.value("prompt")
    if prompt is None or prompt == "":
        return []
    return read_turns(row, prompt, "prompt") if is_list(prompt) else [{"role": "user", "content": row.text("prompt")}]
