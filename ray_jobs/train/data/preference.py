"""A prompt, an answer that was preferred and one that was not: what DPO learns from.

Answers are strings, or lists of messages that differ in the last turn alone; what they share is the prompt then, and is
kept as a conversation, so that the base's chat template renders it. Beside it stands the prompt as one text, by which
rows are compared and people read them: of one question that question, of a longer conversation lines of `role: text`.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import ClassVar

import pyarrow as pa

from ray_jobs.train.data.kind import Compared, Content, Measured, strings, text_hash
from ray_jobs.train.data.prompt import MESSAGES, PROMPT_MESSAGES, as_text, asked_by, is_list, measured_with, spoken
from ray_jobs.train.data.raw_row import RawRow, WrongRowError


class Preference:
    """A prompt and two answers, the better one first."""

    name: ClassVar[str] = "preference"
    columns: ClassVar[tuple[pa.Field, ...]] = (*strings("prompt", "chosen", "rejected"), PROMPT_MESSAGES)
    spellings: ClassVar[frozenset[str]] = frozenset({"prompt", "chosen", "rejected", MESSAGES})
    expected: ClassVar[str] = "prompt, chosen and rejected"
    lengths: ClassVar[tuple[str, ...]] = ("prompt", "whole")
    leaks_by_asked: ClassVar[bool] = True

    def fits(self, names: AbstractSet[str]) -> bool:
        """Whether there are two answers."""
        return names >= {"chosen", "rejected"}

    def read(self, row: RawRow) -> list[Content]:
        """Prompt and answers. Raises WrongRowError where the answers are the same."""
        lists = [name for name in ("chosen", "rejected") if is_list(row.value(name))]
        if len(lists) == 1:
            raise WrongRowError(
                "bad-rejected", "one of 'chosen' and 'rejected' is a list: expected two strings or two lists"
            )
        content = _from_lists(row) if lists else _from_texts(row)
        if content["chosen"].strip() == content["rejected"].strip():
            raise WrongRowError("equal-answers", "'chosen' and 'rejected' are the same: nothing is there to prefer")
        return [content]

    def compared(self, content: Content) -> Compared:
        """Asked is the prompt; what is rejected counts backwards, so that it is not the same as what is chosen."""
        return Compared(content["prompt"], f"{content['chosen']}\n{content['rejected'][::-1]}")

    def group(self, content: Content) -> str:
        """By the prompt."""
        return f"prompt:{text_hash(content['prompt'])}"

    def measured(self, content: Content) -> dict[str, tuple[Measured, ...]]:
        """The prompt, and the prompt with either answer."""
        return measured_with(content, "chosen", "rejected")


def _from_texts(row: RawRow) -> Content:
    answers = {name: row.text(name) for name in ("chosen", "rejected")}
    return {**asked_by(row), **answers}


def _from_lists(row: RawRow) -> Content:
    chosen, rejected = (spoken(row, name) for name in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise WrongRowError("different-prompts", "'chosen' and 'rejected' differ before the last turn")
    answers = {"chosen": chosen[-1]["content"], "rejected": rejected[-1]["content"]}
    return {"prompt": as_text(chosen[:-1]), MESSAGES: chosen[:-1], **answers}
