"""A prompt, a completion, and whether it is a good one (`label`): what KTO learns from.

Prompt and completion are strings, or lists of messages, as preferences have them.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import ClassVar

import pyarrow as pa

from ray_jobs.train.data.kind import Compared, Content, Measured, strings, text_hash
from ray_jobs.train.data.prompt import MESSAGES, PROMPT_MESSAGES, as_text, asked_by, is_list, measured_with, spoken
from ray_jobs.train.data.raw_row import RawRow, WrongRowError, shown


class Label:
    """A prompt, a completion and its label."""

    name: ClassVar[str] = "label"
    columns: ClassVar[tuple[pa.Field, ...]] = (
        *strings("prompt", "completion"),
        pa.field("label", pa.bool_(), nullable=False),
        PROMPT_MESSAGES,
    )
    spellings: ClassVar[frozenset[str]] = frozenset({"prompt", "completion", "label", MESSAGES})
    expected: ClassVar[str] = "prompt, completion and label"
    lengths: ClassVar[tuple[str, ...]] = ("prompt", "whole")
    leaks_by_asked: ClassVar[bool] = True

    def fits(self, names: AbstractSet[str]) -> bool:
        """Whether there are a prompt, a completion and a label."""
        return names >= {"prompt", "completion", "label"}

    def read(self, row: RawRow) -> list[Content]:
        """Prompt, completion and label; 0 and 1 are labels too."""
        label = row.value("label")
        if label is None:
            raise WrongRowError("missing-label", "there is no 'label'")
        if not isinstance(label, bool | int) or label not in (0, 1):
            raise WrongRowError("bad-label", f"'label' is {shown(label)}: expected true or false")
        if not is_list(row.value("completion")):
            return [{**asked_by(row), "completion": row.text("completion"), "label": bool(label)}]
        turns = spoken(row, "completion")
        content = {"prompt": as_text(turns[:-1]), MESSAGES: turns[:-1], "completion": turns[-1]["content"]}
        return [{**content, "label": bool(label)}]

    def compared(self, content: Content) -> Compared:
        """Asked is the prompt; a completion that is praised and one that is blamed are two."""
        return Compared(content["prompt"], content["completion"], exact=str(content["label"]))

    def group(self, content: Content) -> str:
        """By the prompt."""
        return f"prompt:{text_hash(content['prompt'])}"

    def measured(self, content: Content) -> dict[str, tuple[Measured, ...]]:
        """The prompt, and the whole."""
        return measured_with(content, "completion")
