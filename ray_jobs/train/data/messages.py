"""Conversations: OpenAI's `messages`, or `conversations` of `from` and `value`.

Guaranteed: the first turn may be the system's (or the developer's, as newer files call it), then user and assistant
take turns, and the assistant has the last word; an assistant's turn of weight 0 is kept and is not learned. Not
guaranteed: tool calls, images and other weights; such rows are rejected, since leaving them out would change what is
taught.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import ClassVar

import pyarrow as pa

from ray_jobs.train.data.kind import Compared, Content, Measured, Turn, text_hash
from ray_jobs.train.data.raw_row import RawRow, WrongRowError, shown

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
}
_REFUSED = ("tool_calls", "function_call", "tool_call_id", "audio")
_TURN = pa.struct([pa.field("role", pa.string(), nullable=False), pa.field("content", pa.string(), nullable=False)])
TURNS = pa.list_(pa.field("element", _TURN, nullable=False))
_WEIGHTS = pa.list_(pa.field("element", pa.int8(), nullable=False))


class Messages:
    """Conversations that end with what the assistant is to say."""

    name: ClassVar[str] = "messages"
    columns: ClassVar[tuple[pa.Field, ...]] = (
        pa.field("messages", TURNS, nullable=False),
        pa.field("message_weights", _WEIGHTS),  # one a message; null where all are learned
    )
    spellings: ClassVar[frozenset[str]] = frozenset({"messages", "conversations", "system", "message_weights"})
    expected: ClassVar[str] = "messages, or conversations"
    lengths: ClassVar[tuple[str, ...]] = ("whole",)
    leaks_by_asked: ClassVar[bool] = True

    def fits(self, names: AbstractSet[str]) -> bool:
        """Whether there is a conversation."""
        return bool(names & {"messages", "conversations"})

    def read(self, row: RawRow) -> list[Content]:
        """The conversation, its roles named as OpenAI names them, and the weights of its turns where not all are 1."""
        found = row.value("messages", "conversations")
        turns = read_turns(row, found, "messages")
        weights = _weights(row, found, turns)
        if row.value("system") is not None and turns and turns[0]["role"] != "system":
            turns, weights = [{"role": "system", "content": row.text("system")}, *turns], [1, *weights]
        check_order(turns)
        if all(weights):
            return [{"messages": turns}]
        if not any(weight for turn, weight in zip(turns, weights, strict=True) if turn["role"] == "assistant"):
            raise WrongRowError(
                "nothing-learned", "every turn of the assistant has weight 0: nothing is there to learn"
            )
        return [{"messages": turns, "message_weights": weights}]

    def compared(self, content: Content) -> Compared:
        """Asked is all that comes before the last answer, but for the system's turn, which whole data sets share."""
        turns: list[Turn] = content["messages"]
        asked = [turn["content"] for turn in turns[:-1] if turn["role"] != "system"]
        return Compared("\n".join(asked), turns[-1]["content"])

    def group(self, content: Content) -> str:
        """By the first question: conversations that branch from it stay together."""
        first = next(turn for turn in content["messages"] if turn["role"] == "user")
        return f"prompt:{text_hash(first['content'])}"

    def measured(self, content: Content) -> dict[str, tuple[Measured, ...]]:
        """The whole conversation."""
        return {"whole": (content["messages"],)}


def read_turns(row: RawRow, value: object, name: str) -> list[Turn]:
    """The turns of a list of messages, cleaned. Raises WrongRowError."""
    if value is None:
        raise WrongRowError(f"missing-{name}", f"there is no {name!r}")
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise WrongRowError(f"bad-{name}", f"{name!r} is {shown(value)}: expected a list of messages")
    if not value:
        raise WrongRowError(f"empty-{name}", f"{name!r} has no message")
    return [_turn(row, item, number) for number, item in enumerate(value, 1)]


def check_order(turns: Sequence[Turn]) -> None:
    """Raise WrongRowError unless user and assistant take turns and the assistant has the last word."""
    roles = [turn["role"] for turn in turns]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    if "assistant" not in spoken:
        raise WrongRowError("no-assistant-turn", f"the roles are {_listed(roles)}: nothing is there to learn")
    if any(role != ("user", "assistant")[number % 2] for number, role in enumerate(spoken)):
        raise WrongRowError(
            "wrong-role-order",
            f"the roles are {_listed(roles)}: expected user and assistant in turn, system only first",
        )
    if spoken[-1] != "assistant":
        raise WrongRowError("last-turn-not-assistant", f"the roles are {_listed(roles)}: expected assistant at the end")


def _turn(row: RawRow, item: object, number: int) -> Turn:
    if not isinstance(item, Mapping):
        raise WrongRowError(
            "bad-message", f"message {number} is {shown(item)}: expected an object with role and content"
        )
    role = item.get("role") or item.get("from")
    if not isinstance(role, str) or role not in ROLES:
        raise WrongRowError(
            "unknown-role", f"message {number} has role {shown(role)}: expected one of {_listed(ROLES)}"
        )
    refused = [key for key in _REFUSED if item.get(key)]
    if refused:
        raise WrongRowError("not-only-text", f"message {number} has {refused[0]!r}: only texts can be taught")
    content = row.clean(_text(item.get("content", item.get("value")), number))
    if not content.strip():
        raise WrongRowError("empty-message", f"message {number} ({role}) is empty")
    return {"role": ROLES[role], "content": content}


def _weights(row: RawRow, found: object, turns: Sequence[Turn]) -> list[int]:
    """The weight of each turn: in the messages, as OpenAI has it, or in a column, as prepared rows have it."""
    assert isinstance(found, Sequence), "they were read as turns"
    beside = row.value("message_weights")
    if beside is None:
        given: list[object] = [item.get("weight") for item in found if isinstance(item, Mapping)]
    elif isinstance(beside, Sequence) and not isinstance(beside, str) and len(beside) == len(turns):
        given = list(beside)
    else:
        raise WrongRowError(
            "bad-message_weights", f"'message_weights' is {shown(beside)}: expected a number for each message"
        )
    return [_weight(value, turn, number) for number, (value, turn) in enumerate(zip(given, turns, strict=True), 1)]


def _weight(value: object, turn: Turn, number: int) -> int:
    if value is None:
        return 1
    if value not in ((0, 1) if turn["role"] == "assistant" else (1,)) or not isinstance(value, int | float):
        raise WrongRowError(
            "weighted-turn",
            f"message {number} ({turn['role']}) has weight {shown(value)}: expected 0 or 1 for the assistant, and "
            "none or 1 for others",
        )
    return int(value)


def _text(content: object, number: int) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence) and content:
        texts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
        if len(texts) == len(content) and all(isinstance(text, str) for text in texts):
            return "".join(map(str, texts))
        raise WrongRowError("not-only-text", f"message {number} has a part that is no text: only texts can be taught")
    raise WrongRowError("bad-message", f"message {number} has content {shown(content)}: expected a string")


def _listed(roles: object) -> str:
    return ", ".join(roles) if isinstance(roles, list | dict) else str(roles)
