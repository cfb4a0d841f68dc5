"""A question by itself: an evaluation set may have nothing else that training rows could be compared with."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import ClassVar

import pyarrow as pa

from ray_jobs.train.data.kind import Compared, Content, Measured, strings, text_hash
from ray_jobs.train.data.raw_row import RawRow

_SPELLINGS = ("question", "query", "prompt", "instruction", "text")


class Question:
    """What is asked, and no answer; for evaluation sets only."""

    name: ClassVar[str] = "question"
    columns: ClassVar[tuple[pa.Field, ...]] = strings("question")
    spellings: ClassVar[frozenset[str]] = frozenset({*_SPELLINGS, "input"})
    expected: ClassVar[str] = "question, query, prompt, instruction or text"
    lengths: ClassVar[tuple[str, ...]] = ()
    leaks_by_asked: ClassVar[bool] = True

    def fits(self, names: AbstractSet[str]) -> bool:
        """Whether there is something asked."""
        return bool(names & set(_SPELLINGS))

    def read(self, row: RawRow) -> list[Content]:
        """What is asked; an instruction with its input."""
        asked = row.text(*_SPELLINGS)
        if not row.names & {"question", "query", "prompt"} and row.value("instruction") and row.value("input"):
            asked = f"{asked}\n\n{row.text('input')}"
        return [{"question": asked}]

    def compared(self, content: Content) -> Compared:
        """All is asked."""
        return Compared(content["question"], "")

    def group(self, content: Content) -> str:
        """Each by itself."""
        return f"prompt:{text_hash(content['question'])}"

    def measured(self, content: Content) -> dict[str, tuple[Measured, ...]]:
        """Nothing: evaluation sets are not measured."""
        return {}
