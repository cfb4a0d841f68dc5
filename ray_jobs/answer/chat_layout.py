"""A conversation as the tokens that a model was trained to read: by its chat template, or as plain lines.

Guaranteed: a template that takes no system turn, or drops it, gets the instructions with the first turn instead; in
plain lines no text can begin a turn of its own. Chat templates run in the sandbox of transformers. Not guaranteed: that
a model without a chat template was ever taught to answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ray_jobs.answer.engine import Message
from ray_jobs.answer.prompt import Reading
from ray_jobs.errors import ModelError

_LABELS = {"system": "System", "user": "User", "assistant": "Assistant"}
_POSED = re.compile(rf"^(?:{'|'.join(_LABELS.values())}):", re.MULTILINE | re.IGNORECASE)
_MARKUP = re.compile(r"[<>\[\]{}|]")
_PROBE = (Message("system", "0b9d41"), Message("user", "?"))


class ChatLayout:
    """How one tokeniser wants its conversations. Raises ModelError for a template that refuses every one."""

    def __init__(self, tokenizer: Any, variables: Mapping[str, str | bool]) -> None:
        self._tokenizer = tokenizer
        self._variables = dict(variables)
        self.has_template = bool(tokenizer.chat_template)
        self._takes_system = not self.has_template or self._keeps_system()
        # The first call switches off what the tokeniser's file says of truncation and padding: not safe among threads.
        self.ids(_PROBE)
        self.reading = Reading(lambda messages: len(self.ids(messages)), _reserved(tokenizer))

    @property
    def stops(self) -> tuple[str, ...]:
        """What ends an answer beside the model's own end: in plain lines a model may go on with the next turn."""
        return () if self.has_template else (f"\n{_LABELS['user']}:",)

    def ids(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of the conversation up to where the answer begins. Raises ModelError when the template refuses it."""
        if not self.has_template:
            return list(self._tokenizer(_lines(messages))["input_ids"])
        text = self._render(messages if self._takes_system else _without_system(messages))
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _render(self, messages: Sequence[Message]) -> str:
        from jinja2.exceptions import TemplateError

        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    turns, tokenize=False, add_generation_prompt=True, **self._variables
                )
            )
        except TemplateError as error:
            raise ModelError(
                f"the model's chat template refuses the conversation ({error}): check chat_template in the "
                "configuration, or choose another model"
            ) from error

    def _keeps_system(self) -> bool:
        try:
            return _PROBE[0].content in self._render(_PROBE)
        except ModelError:
            return False


def _without_system(messages: Sequence[Message]) -> list[Message]:
    """The instructions as the beginning of the first turn."""
    instructions = [message.content for message in messages if message.role == "system"]
    turns = [message for message in messages if message.role != "system"]
    return [Message(turns[0].role, "\n\n".join([*instructions, turns[0].content])), *turns[1:]]


def _lines(messages: Sequence[Message]) -> str:
    said = [f"{_LABELS[message.role]}: {_POSED.sub(_indented, message.content)}" for message in messages]
    return "\n".join([*said, f"{_LABELS['assistant']}:"])


def _indented(match: re.Match[str]) -> str:
    return f" {match[0]}"


def _reserved(tokenizer: Any) -> tuple[str, ...]:
    """Special tokens, and added ones that look like markup; others that were added are words of some subject."""
    added = tokenizer.added_tokens_decoder.values()
    marks = [token.content for token in added if token.special or _MARKUP.search(token.content)]
    return tuple(sorted({*marks, *tokenizer.all_special_tokens}))
