"""A prompt, an answer that was preferred and one that was not: what DPO learns from.

Answers are strings, or lists of messages that differ in the last turn alone; what they share is the prompt then. A
prompt of one question is that question; a longer conversation becomes lines of `role: text`, since a prompt is one
string.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import ClassVar

import pyarrow as pa

from ray_jobs.train.data.kind import Compared, Content, Measured, Turn, strings, text_hash
from ray_jobs.train.data.messages import check_order, read_turns
from ray_jobs.train.data.raw_row import RawRow, WrongRowError


class Preference:
    """A prompt and two answers, the better one first."""

    name: ClassVar[str] = "preference"
    columns: ClassVar[tuple[pa.Field, ...]] = strings("prompt", "chosen", "rejected")
    spellings: ClassVar[frozenset[str]] = frozenset({"prompt", "chosen", "rejected"})
    expected: ClassVar[str] = "prompt, chosen and rejected"
    lengths: ClassVar[tuple[str, ...]] = ("prompt", "whole")
    leaks_by_asked: ClassVar[bool] = True

    def fits(self, names: AbstractSet[str]) -> bool:
        """Whether there are two answers."""
        return names >= {"chosen", "rejected"}

    def read(self, row: RawRow) -> list[Content]:
        """Prompt and answers. Raises WrongRowError where the answers are the same."""
        lists = [name for name in ("chosen", "rejected") if _is_list(row.value(name))]
        if len(lists) == 1:
            raise WrongRowError(
                "bad-rejected", "one of 'chosen' and 'rejected' is a list: expected two strings or two lists"
            )
        content = _from_lists(row) if lists else {name: row.text(name) for name in ("prompt", "chosen", "rejected")}
        if content["chosen"].strip() == content["rejected"].strip():
            raise WrongRowError("equal-answers", "'chosen' and 'rejected' are the same: nothing is there to prefer")
        return [content]

    def compared(self, content: Content) -> Compared:
        """Asked is the prompt."""
        return Compared(content["prompt"], f"{content['chosen']}\n{content['rejected']}")

    def group(self, content: Content) -> str:
        """By the prompt."""
        return f"prompt:{text_hash(content['prompt'])}"

    def measured(self, content: Content) -> dict[str, tuple[Measured, ...]]:
        """The prompt, and the prompt with either answer."""
        prompt = content["prompt"]
        return {"prompt": (prompt,), "whole": (prompt + content["chosen"], prompt + content["rejected"])}


def _from_lists(row: RawRow) -> Content:
    chosen, rejected = (read_turns(row, row.value(name), name) for name in ("chosen", "rejected"))
    before = _prompt(row)
    chosen, rejected = (turns if turns[: len(before)] == before else [*before, *turns] for turns in (chosen, rejected))
    check_order(chosen)
    check_order(rejected)
    if chosen[:-1] != rejected[:-1]:
        raise WrongRowError("different-prompts", "'chosen' and 'rejected' differ before the last turn")
    return {"prompt": _as_text(chosen[:-1]), "chosen": chosen[-1]["content"], "rejected": rejected[-1]["content"]}


def _prompt(row: RawRow) -> list[Turn]:
    prompt = row.value("prompt")
    if prompt is None or prompt == "":
        return []
    return read_turns(row, prompt, "prompt") if _is_list(prompt) else [{"role": "user", "content": row.text("prompt")}]


def _as_text(turns: Sequence[Turn]) -> str:
    if len(turns) == 1:
        return turns[0]["content"]
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
