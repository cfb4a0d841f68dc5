"""A question, a passage, and where in it the answers lie: SQuAD's columns, or question, passage and answer.

Answers come as `{text, answer_start}` of lists, as a list of such objects, as texts beside `starts` (or `answer_start`,
`answer_starts`), or without offsets; then the first place counts. Guaranteed: `passage[start:]` begins with the answer;
offsets are code points of the cleaned passage. A passage without an answer is one with an empty list of answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import ClassVar

import pyarrow as pa

from ray_jobs.train.data.cleaning import cleaned_start
from ray_jobs.train.data.kind import Compared, Content, Measured, strings, text_hash
from ray_jobs.train.data.raw_row import RawRow, WrongRowError, check_text, shown

_PASSAGE = ("passage", "context")
_ANSWERS = ("answers", "answer")
_STARTS = ("starts", "answer_starts", "answer_start", "start")


class Qa:
    """A question, a passage and the spans that answer it."""

    name: ClassVar[str] = "qa"
    columns: ClassVar[tuple[pa.Field, ...]] = (
        *strings("question", "passage"),
        pa.field("answers", pa.list_(pa.field("element", pa.string(), nullable=False)), nullable=False),
        pa.field("starts", pa.list_(pa.field("element", pa.int32(), nullable=False)), nullable=False),
    )
    spellings: ClassVar[frozenset[str]] = frozenset({"question", *_PASSAGE, *_ANSWERS, *_STARTS, "is_impossible"})
    expected: ClassVar[str] = "question, passage (or context) and answers"
    # Many passages are asked what their title is: the passage must be near as well.
    lengths: ClassVar[tuple[str, ...]] = ("question", "whole")
    leaks_by_asked: ClassVar[bool] = False

    def fits(self, names: AbstractSet[str]) -> bool:
        """Whether there are a question and a passage."""
        return "question" in names and bool(names & set(_PASSAGE))

    def read(self, row: RawRow) -> list[Content]:
        """The question and its spans. Raises WrongRowError for an answer that is not at its offset."""
        question = row.text("question").strip()
        found = row.raw_text(*_PASSAGE)
        passage = check_text(row.clean(found), "passage")
        spans = [_span(row, found, passage, answer, start) for answer, start in _answers(row)]
        return [
            {
                "question": question,
                "passage": passage,
                "answers": [answer for answer, _ in spans],
                "starts": [start for _, start in spans],
            }
        ]

    def compared(self, content: Content) -> Compared:
        """Asked is the question, the passage is the rest and the document; the answers come out."""
        return Compared(
            content["question"], content["passage"], content["passage"], "\n".join(sorted(set(content["answers"])))
        )

    def group(self, content: Content) -> str:
        """By the passage."""
        return f"passage:{text_hash(content['passage'])}"

    def measured(self, content: Content) -> dict[str, tuple[Measured, ...]]:
        """The question, and the question with its passage."""
        return {"question": (content["question"],), "whole": (f"{content['question']}\n{content['passage']}",)}


def _answers(row: RawRow) -> list[tuple[str, object]]:
    """The answers as found, with their offsets or None."""
    value = row.value(*_ANSWERS)
    if row.value("is_impossible") is True:
        return []
    if value is None:
        raise WrongRowError(
            "missing-answers", "there are no 'answers': expected an empty list where there is no answer"
        )
    if isinstance(value, Mapping):
        texts, starts = _listed(value.get("text")), _listed(value.get("answer_start"))
    elif isinstance(value, Sequence) and value and all(isinstance(item, Mapping) for item in value):
        texts, starts = [item.get("text") for item in value], [item.get("answer_start") for item in value]
    else:
        texts, starts = _listed(value), _listed(row.value(*_STARTS))
    if starts and len(starts) != len(texts):
        raise WrongRowError("bad-starts", f"{len(texts)} answers have {len(starts)} offsets")
    answers = [check_text(text, "answers") for text in texts]
    return list(zip(answers, starts or [None] * len(answers), strict=True))


def _listed(value: object) -> list[object]:
    if value is None:
        return []
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def _span(row: RawRow, found: str, passage: str, answer: str, start: object) -> tuple[str, int]:
    """The answer and its offset in the cleaned passage."""
    cleaned = check_text(row.clean(answer), "answers")
    if start is None:
        at = passage.find(cleaned)
        if at < 0:
            raise WrongRowError("answer-not-in-passage", f"{shown(answer)} is nowhere in the passage")
        return cleaned, at
    if isinstance(start, float) and start.is_integer():
        start = int(start)
    if isinstance(start, bool) or not isinstance(start, int) or start < 0:
        raise WrongRowError("bad-starts", f"an offset is {shown(start)}: expected a whole number from 0")
    if not found.startswith(answer, start):
        there = shown(found[start : start + len(answer)])
        raise WrongRowError("answer-not-at-offset", f"{shown(answer)} should lie at {start}, where {there} is")
    moved = cleaned_start(found, start, passage, cleaned)
    if moved is None:
        raise WrongRowError("answer-not-at-offset", f"{shown(answer)} at {start} does not survive cleaning")
    return cleaned, moved
