"""A prompt and what follows it: `prompt` and `completion`, or `instruction`, `input` and `output`."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import ClassVar

import pyarrow as pa

from ray_jobs.train.data.kind import Compared, Content, Measured, strings, text_hash
from ray_jobs.train.data.raw_row import RawRow

_INSTRUCTION = frozenset({"instruction", "output"})


class Completion:
    """A prompt and its completion."""

    name: ClassVar[str] = "completion"
    columns: ClassVar[tuple[pa.Field, ...]] = strings("prompt", "completion")
    spellings: ClassVar[frozenset[str]] = frozenset({"prompt", "completion", "instruction", "input", "output"})
    expected: ClassVar[str] = "prompt and completion, or instruction, input and output"
    lengths: ClassVar[tuple[str, ...]] = ("prompt", "whole")
    leaks_by_asked: ClassVar[bool] = True

    def fits(self, names: AbstractSet[str]) -> bool:
        """Whether there are a prompt and a completion."""
        return names >= {"prompt", "completion"} or names >= _INSTRUCTION

    def read(self, row: RawRow) -> list[Content]:
        """Prompt and completion; an instruction and its input are a prompt of two paragraphs."""
        if not {"prompt", "completion"} & row.names and row.names & _INSTRUCTION:
            prompt = row.text("instruction")
            material = row.value("input")
            if material is not None and material != "":
                prompt = f"{prompt}\n\n{row.text('input')}"
            return [{"prompt": prompt, "completion": row.text("output")}]
        return [{"prompt": row.text("prompt"), "completion": row.text("completion")}]

    def compared(self, content: Content) -> Compared:
        """Asked is the prompt."""
        return Compared(content["prompt"], content["completion"])

    def group(self, content: Content) -> str:
        """By the prompt."""
        return f"prompt:{text_hash(content['prompt'])}"

    def measured(self, content: Content) -> dict[str, tuple[Measured, ...]]:
        """The prompt, and the whole."""
        return {"prompt": (content["prompt"],), "whole": (content["prompt"] + content["completion"],)}
